"""A training that is stopped anywhere and resumed ends as if it had never been stopped."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.training import session as session_module
from vidur_ext.training.interruption import Interrupted
from vidur_ext.training.simulated_training import run_training

_CLOCK_COLUMNS = ("Speed/DecisionsPerSecond", "Speed/UpdateSeconds", "Speed/CheckpointSeconds")


def train(config, run_dir: Path, load_checkpoint: str | None = None, stop_at: int | None = None):
    flags = config.to_cli_flags(
        "ppo_modular",
        metrics_dir=str(run_dir / "vidur"),
        run_dir=str(run_dir),
        load_checkpoint=load_checkpoint,
        stop_at_requests=stop_at,
    )
    return run_training(parse_simulation_config(flags))


def metrics(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics" / "training.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{n: v for n, v in row.items() if n not in _CLOCK_COLUMNS} for row in rows]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run_dir / "policy.pt", weights_only=True)
    return state["policy"]["network"]


def equal(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def stop_at(monkeypatch):
    """Send this process SIGTERM at a PPO step, once."""

    def arm(step: int) -> None:
        original = session_module.TrainingSession._after_decision

        def hook(self):
            if self.learner.ppo_step == step:
                monkeypatch.setattr(session_module.TrainingSession, "_after_decision", original)
                os.kill(os.getpid(), signal.SIGTERM)
            original(self)

        monkeypatch.setattr(session_module.TrainingSession, "_after_decision", hook)

    return arm


@pytest.mark.parametrize("step", [1, 10, 57, 100, 101, 163, 239])
def test_stopped_and_resumed_is_bit_identical(make_config, tmp_path, stop_at, step):
    straight = make_config(checkpointing={"checkpoint_dir": str(tmp_path / "straight_ckpt")})
    train(straight, tmp_path / "straight")

    config = make_config()
    stop_at(step)
    with pytest.raises(Interrupted) as stop:
        train(config, tmp_path / "resumed")
    assert stop.value.number == signal.SIGTERM
    train(config, tmp_path / "resumed", load_checkpoint="latest")

    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "resumed"))
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "resumed")


def test_training_in_chunks_is_bit_identical(make_config, tmp_path):
    straight = make_config(checkpointing={"checkpoint_dir": str(tmp_path / "straight_ckpt")})
    train(straight, tmp_path / "straight")

    config = make_config()
    done = []
    for stop_at in (70, 140, 200, 240):
        train(config, tmp_path / "chunks", "latest" if done else None, stop_at)
        done.append(CheckpointStore(config.checkpointing).latest().manifest)
    assert [manifest.global_step for manifest in done] == [70, 140, 200, 240]
    assert [manifest.reason for manifest in done] == [*["chunk_end"] * 3, "end"]
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "chunks"))
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "chunks")


def test_a_checkpoint_counts_every_decision_once(make_config, tmp_path):
    config = make_config()
    train(config, tmp_path / "run")
    manifest = CheckpointStore(config.checkpointing).latest().manifest
    assert manifest.global_step == manifest.facts["requests_done"] == 240
    assert manifest.reason == "end"


def test_a_finished_training_can_be_extended(make_config, tmp_path):
    train(make_config(), tmp_path / "run")
    longer = make_config(training={"total_requests": 300})
    train(longer, tmp_path / "run", load_checkpoint="latest")
    manifest = CheckpointStore(longer.checkpointing).latest().manifest
    assert manifest.global_step == 300


def test_checkpoint_interval_counts_ppo_steps(make_config, tmp_path):
    config = make_config(checkpointing={"checkpoint_interval": 50, "max_checkpoints": 3})
    train(config, tmp_path / "run")
    steps = [info.manifest.ppo_step for info in CheckpointStore(config.checkpointing).list()]
    assert steps == [150, 200, 240]


def test_without_increments_only_the_newest_is_kept(make_config, tmp_path):
    config = make_config(
        checkpointing={"checkpoint_interval": 50, "incremental_checkpoints": False}
    )
    train(config, tmp_path / "run")
    assert len(CheckpointStore(config.checkpointing).list()) == 1


def test_switched_off_nothing_is_saved(make_config, tmp_path):
    config = make_config(checkpointing={"enable_checkpoints": False})
    train(config, tmp_path / "run")
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "run" / "policy.pt").exists()


def test_a_fresh_training_moves_the_old_lineage_aside(make_config, tmp_path):
    config = make_config()
    train(config, tmp_path / "first")
    old = CheckpointStore(config.checkpointing).latest().path.read_bytes()
    train(config, tmp_path / "second")
    archived = list((tmp_path / "checkpoints" / "archive").rglob("*.pt"))
    assert old in [path.read_bytes() for path in archived if not path.is_symlink()]


def test_another_seed_is_refused(make_config, tmp_path):
    train(make_config(), tmp_path / "run")
    other = make_config(training={"seed": 5, "total_requests": 400})
    with pytest.raises(UserError, match=r"training\.seed: 0 in the checkpoint, 5 now"):
        train(other, tmp_path / "run", load_checkpoint="latest")


def test_a_changed_workload_goes_on_with_its_next_request(make_config, tmp_path, stop_at):
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config(), tmp_path / "run")
    other = make_config(workload={"qps": 9.0}, monitoring={"log_level": "info"})
    train(other, tmp_path / "run", load_checkpoint="latest")
    manifest = CheckpointStore(other.checkpointing).latest().manifest
    assert manifest.global_step == manifest.facts["requests_done"] == 240
    log = (tmp_path / "run" / "ppo_training.log").read_text(encoding="utf-8")
    assert "workload.qps: 22.0 in the checkpoint, 9.0 now" in log
    assert "going on with request 57" in log


def test_what_the_settings_do_not_show_is_found_by_the_replay(make_config, tmp_path, stop_at):
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config(), tmp_path / "run")
    store = CheckpointStore(make_config().checkpointing)
    loaded = store.load("latest")
    loaded.tree["simulation"]["digest"] = "0" * 32
    store.publish(
        loaded.tree,
        Description(**loaded.manifest.model_dump(include=set(Description.model_fields))),
    )
    store.close()
    with pytest.raises(UserError, match="replaying the unfinished episode"):
        train(make_config(), tmp_path / "run", load_checkpoint="latest")


@pytest.mark.parametrize("num_replicas", [2, 5])
def test_another_cluster_size_goes_on_with_the_next_request(
    make_config, tmp_path, stop_at, num_replicas
):
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config(), tmp_path / "run")
    other = make_config(cluster={"num_replicas": num_replicas})
    train(other, tmp_path / "run", load_checkpoint="latest")
    manifest = CheckpointStore(other.checkpointing).latest().manifest
    assert manifest.num_replicas == num_replicas
    assert manifest.global_step == manifest.facts["requests_done"] == 240
    assert metrics(tmp_path / "run")[0]["global_step"] == "47"


def test_a_second_training_cannot_share_the_folder(make_config, tmp_path):
    config = make_config()
    holder = CheckpointStore(config.checkpointing)
    holder.prepare()
    try:
        with pytest.raises(UserError, match=str(os.getpid())):
            train(config, tmp_path / "run")
    finally:
        holder.close()


def test_the_log_says_what_was_resumed(make_config, tmp_path):
    config = make_config(monitoring={"log_level": "info"})
    train(config, tmp_path / "run")
    train(config, tmp_path / "run", load_checkpoint="latest")
    log = (tmp_path / "run" / "ppo_training.log").read_text(encoding="utf-8")
    assert "[Resume] PPO训练恢复" in log
    assert "checkpoint_step_00000240.pt" in log


def test_episodes_end_where_the_config_says(make_config, tmp_path):
    config = make_config(training={"episode_requests": 60})
    train(config, tmp_path / "run")
    manifest = CheckpointStore(config.checkpointing).latest().manifest
    assert manifest.facts["episode"] == 4
