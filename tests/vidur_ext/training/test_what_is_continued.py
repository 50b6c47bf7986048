"""Which checkpoint a training goes on from, and what happens to one that does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_scheduler.checkpoint.migrations import SCHEMA_VERSION
from ppo_scheduler.errors import Interrupted, UserError
from vidur_ext.config.resume_rules import RULES, Effect, differences, rule_of
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.execution_time.devices import device_named
from vidur_ext.execution_time.models import model_named
from vidur_ext.run_folder import RunFolder
from vidur_ext.training.inputs import settings_of

GOLDEN = Path(__file__).parents[2] / "ppo_scheduler" / "checkpoint" / "golden" / "schema_1"
GOLDEN_KEYS = {
    "training": {"total_requests": 120},
    "observation": {"queue_slots": 0, "history": False},
    "actor_critic_architecture": {
        "hidden_size": 4, "attention_heads": 1, "encoder_layers": 1, "attention_layers": 1,
    },
    "ppo_config": {"rollout_len": 16, "minibatch_size": 4, "counterfactual_share": 0.25},
}  # fmt: skip


RATE = TrainingConfig().ppo_config.learning_rate


def curve(folder: Path, name: str = "Rollout/RewardMean") -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.mark.shows("checkpointing.resume_from_checkpoint")
def test_resume_from_checkpoint_names_a_path_or_latest(make_config, train):
    config = make_config(checkpointing={"checkpoint_interval": 60})
    straight = train(config)
    for number, source in enumerate(("latest", str(straight.infos[1].path))):
        again = make_config(
            checkpointing={"resume_from_checkpoint": source}, monitoring={"log_level": "info"}
        )
        resumed = train(again, f"resumed_{number}")
        assert resumed.has_weights_of(straight)
        assert "[Resume] PPO训练恢复" in resumed.log


@pytest.mark.shows("checkpointing.resume_step")
def test_resume_step_names_a_checkpoint_of_the_folder(make_config, train):
    straight = train(make_config(checkpointing={"checkpoint_interval": 60}))
    config = make_config(checkpointing={"resume_step": 120}, monitoring={"log_level": "info"})
    resumed = train(config, "resumed")
    assert "checkpoint_step_00000120.pt (global_step 120, 120 requests done)" in resumed.log
    assert resumed.has_weights_of(straight)


def test_a_step_that_is_not_there_is_named_with_those_that_are(make_config, train):
    train(make_config(checkpointing={"checkpoint_interval": 60}))
    config = make_config(checkpointing={"resume_step": 61})
    with pytest.raises(UserError, match="no checkpoint of PPO step 61; there are: 60, 120, 180"):
        train(config)


def test_the_flag_has_precedence_over_the_config(make_config, train):
    first = train(make_config(checkpointing={"checkpoint_interval": 60}))
    config = make_config(checkpointing={"resume_step": 61}, monitoring={"log_level": "info"})
    trained = train(config, "resumed", load_checkpoint=str(first.infos[0].path))
    assert "checkpoint_step_00000060.pt" in trained.log


@pytest.mark.shows("checkpointing.fork_from_checkpoint")
def test_a_fork_is_a_new_run_and_leaves_the_other_as_it_was(make_config, train, tmp_path):
    first = train(make_config(checkpointing={"checkpoint_interval": 60}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    fork = make_config(
        checkpointing={
            "fork_from_checkpoint": str(first.infos[1].path),
            "checkpoint_dir": str(tmp_path / "fork_checkpoints"),
        }
    )
    forked = train(fork, run_dir=None)
    assert forked.run not in (first.run, tmp_path)
    assert forked.newest.manifest.run_dir == str(forked.run)
    assert forked.has_weights_of(first)
    assert {path: path.read_bytes() for path in before} == before


def test_a_new_folder_shows_the_history_of_the_training(make_config, train, tmp_path):
    straight = train(make_config(checkpointing={"checkpoint_interval": 60}))
    fork = make_config(
        checkpointing={
            "fork_from_checkpoint": str(straight.infos[1].path),
            "checkpoint_dir": str(tmp_path / "fork_checkpoints"),
        }
    )
    forked = train(fork, "fork")
    assert curve(forked.run) == curve(straight.run)
    assert forked.rows == straight.rows


def test_originals_are_not_modified_by_a_resume_elsewhere(make_config, train, tmp_path):
    first = train(make_config())
    kept = tmp_path / "kept"
    shutil.copytree(first.newest.path.parent, kept)
    before = {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()}
    longer = make_config(training={"total_requests": 300})
    train(longer, "longer", load_checkpoint=str(kept / first.newest.path.name))
    assert {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()} == before


MISFITS = {
    "seed": {"training": {"seed": 5}},
    "observation": {"observation": {"queue_slots": 1}},
    "clip": {"observation": {"clip": 3.0}},
    "network": {"actor_critic_architecture": {"hidden_size": 16, "attention_heads": 2}},
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_abort_names_every_setting_that_must_not_change(make_config, train, change):
    first = train(make_config())
    before = first.newest.path.read_bytes()
    with pytest.raises(UserError, match="does not fit this training") as error:
        train(make_config(**change), "other", load_checkpoint="latest")
    ((group, keys),) = change.items()
    name, value = next(iter(keys.items()))
    assert f"{group}.{name}: " in str(error.value)
    assert f"{value!r} now (cannot be changed: " in str(error.value)
    assert first.newest.path.read_bytes() == before


@pytest.mark.shows("checkpointing.on_incompatible")
@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_fresh_moves_the_old_lineage_aside_and_says_so(make_config, train, tmp_path, change):
    first = train(make_config())
    old = first.newest.path.read_bytes()
    config = make_config(**{**change, "checkpointing": {"on_incompatible": "fresh"}})
    second = train(config, "second", load_checkpoint="latest")
    assert "[PPO:checkpoint] Continuing with fresh training state" in second.log
    assert second.newest.manifest.global_step == 240
    archived = (tmp_path / "checkpoints" / "archive").rglob(first.newest.path.name)
    assert [path.read_bytes() for path in archived] == [old]


def test_settings_of_the_learning_count_from_the_resume_on(make_config, train):
    straight = train(make_config())
    elsewhere = {"checkpoint_dir": straight.newest.path.parent.as_posix() + "_stages"}
    train(make_config(checkpointing=elsewhere), "stages", stop_at_requests=120)
    stage = make_config(
        checkpointing=elsewhere,
        ppo_config={"learning_rate": 3e-3},
        monitoring={"log_level": "info"},
    )
    staged = train(stage, "stages", load_checkpoint="latest")
    rates = [float(row["Training/LearningRate"] or "nan") for row in staged.rows]
    before = [float(row["Training/LearningRate"] or "nan") for row in straight.rows]
    changed = [now != then for now, then in zip(rates, before, strict=True) if then == then]
    assert changed == [False, False, False, True, True, True, True]
    assert (
        f"ppo_config.learning_rate: {RATE} in the checkpoint, 0.003 now (counts from" in staged.log
    )


@pytest.mark.parametrize("rollout_len", [16, 64])
def test_another_rollout_length_loses_no_request(make_config, train, rollout_len):
    train(make_config(), stop_at_requests=75)  # 27 steps of a rollout are collected
    other = make_config(ppo_config={"rollout_len": rollout_len, "minibatch_size": 4})
    trained = train(other, load_checkpoint="latest")
    assert trained.newest.manifest.facts["requests_done"] == 240


def test_what_python_and_torch_draw_elsewhere_does_not_matter(make_config, train, stop_at):
    import random

    import numpy as np
    import torch

    straight = train(
        make_config(checkpointing={"checkpoint_dir": make_config().training.output_root + "_s"}),
        "straight",
    )
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config())
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002 - the very generator that must not matter
    torch.manual_seed(99)
    assert train(make_config(), load_checkpoint="latest").has_weights_of(straight)


def test_a_checkpoint_of_schema_1_goes_on(make_config, train, tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "checkpoints")
    trained = train(make_config(**GOLDEN_KEYS), load_checkpoint="latest")
    assert trained.newest.manifest.schema_version == SCHEMA_VERSION
    assert trained.newest.manifest.facts["requests_done"] == 120
    old = (tmp_path / "checkpoints" / "checkpoint_step_00000057.pt").read_bytes()
    assert old == (GOLDEN / "checkpoint_step_00000057.pt").read_bytes()


def test_a_misfit_is_found_without_settings_too(make_config, train, tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "checkpoints")
    for change, reason in (
        ({"training": {"seed": 3}}, "training.seed=0 in the checkpoint, 3 now"),
        ({"observation": {"queue_slots": 2, "history": False}}, "sees other features"),
        ({"actor_critic_architecture": {"hidden_size": 8}}, "hidden_size is 4 in the file"),
    ):
        with pytest.raises(UserError, match=reason):
            train(make_config(**{**GOLDEN_KEYS, **change}), load_checkpoint="latest")


def test_every_key_has_a_rule_and_every_rule_has_keys():
    names = settings_of(TrainingConfig())
    used = {rule_of(name).pattern for name in names}
    assert used == {rule.pattern for rule in RULES}


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("training.seed", Effect.REFUSED),
        ("observation.history", Effect.REFUSED),
        ("observation.history_alpha", Effect.FROM_NOW_ON),
        ("actor_critic_architecture.hidden_size", Effect.REFUSED),
        ("actor_critic_architecture.orthogonal_init", Effect.NONE),
        ("training.total_requests", Effect.FROM_NOW_ON),
        ("ppo_config.rollout_len", Effect.FROM_NOW_ON),
        ("workload.qps", Effect.NEXT_EPISODE),
        ("simulation.engine", Effect.NEXT_EPISODE),
        ("parallel_training.num_envs", Effect.NEXT_EPISODE),
        ("parallel_training.num_workers", Effect.NONE),
        ("cluster.num_replicas", Effect.NEXT_EPISODE),
        ("checkpointing.max_checkpoints", Effect.NONE),
        ("monitoring.csv", Effect.NONE),
    ],
)
def test_the_table_says_what_may_change(name, effect):
    assert rule_of(name).effect is effect


def test_only_what_both_know_can_differ():
    found = differences({"training.seed": 0, "gone.key": 1}, {"training.seed": 1, "new.key": 2})
    assert [str(d) for d in found] == [
        "training.seed: 0 in the checkpoint, 1 now (cannot be changed: request stream and random "
        "numbers follow from it)"
    ]


def test_a_folder_whose_name_is_no_text_is_refused(make_config, train):
    with pytest.raises(UserError, match="this name is none"):
        train(make_config(), run_dir="outputs/\udcff")


def write_trace(path: Path, requests: int) -> None:
    rows = [f"{second / 10},200,20" for second in range(requests)]
    header = "arrived_at,num_prefill_tokens,num_decode_tokens"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")


def replaying(make_config, path: Path, total: int = 100, **workload: object) -> TrainingConfig:
    return make_config(
        workload={"source": "trace", "trace_file": str(path), **workload},
        training={"total_requests": total},
        checkpointing={"validation_freq": None},
    )


def test_a_trace_with_another_content_is_named_and_its_held_out_part_doubted(
    make_config, train, tmp_path
):
    path = tmp_path / "live.csv"
    write_trace(path, 400)
    train(replaying(make_config, path))
    write_trace(path, 300)
    trained = train(replaying(make_config, path, 200), load_checkpoint="latest")
    assert "inputs.trace: " in trained.log
    assert "a file has another content under its name" in trained.log
    assert "held out now cannot be told" in trained.log
    assert len(RunFolder(trained.run).record.trained) == 2


def test_held_out_requests_that_were_trained_on_are_counted(make_config, train, tmp_path):
    path = tmp_path / "live.csv"
    write_trace(path, 400)
    first = train(replaying(make_config, path))
    assert "have been trained on" not in first.log
    second = train(
        replaying(make_config, path, 200, holdout_fraction=0.5), "fork", load_checkpoint="latest"
    )
    assert "120 of the 200 requests held out have been trained on" in second.log
    assert list(RunFolder(second.run).record.trained.values()) == [320]


@pytest.mark.parametrize("key", ["device", "devices", "model_name"])
def test_a_device_or_model_file_with_another_content_is_another_input(make_config, tmp_path, key):
    path = tmp_path / "own.json"
    ours = {"device": device_named("a100"), "devices": device_named("a100")}
    described = ours.get(key, model_named("meta-llama/Llama-3-8B")).model_dump()
    value = [str(path)] if key == "devices" else str(path)

    def settings(**changed):
        path.write_text(json.dumps(described | changed), encoding="utf-8")
        return settings_of(make_config(cluster={"num_replicas": 1, key: value}))

    before = settings()
    assert settings() == before
    changed = {"vocab_size": 1000} if key == "model_name" else {"gemm_factor": 1.5}
    [change] = differences(before, settings(**changed))
    assert change.name == "inputs.hardware"
    assert change.rule.effect is Effect.NEXT_EPISODE


@pytest.mark.parametrize("name", ["mlp.csv", "mlp.csv.xz"])
def test_profiles_with_another_content_are_another_input(make_config, tmp_path, name):
    groups = {"simulation": {"engine": "vidur", "predictor": "local_linear_regression"}}
    groups["simulation"]["profile_dir"] = str(tmp_path)
    groups["evaluation"] = {"enabled": False}
    (tmp_path / name).write_text("a,b\n1,2\n")
    before = settings_of(make_config(**groups))
    assert settings_of(make_config(**groups)) == before
    (tmp_path / name).write_text("a,b\n1,3\n")
    [change] = differences(before, settings_of(make_config(**groups)))
    assert change.name == "inputs.profiles"
    assert change.rule.effect is Effect.NEXT_EPISODE
