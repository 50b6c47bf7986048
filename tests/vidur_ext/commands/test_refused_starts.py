"""A start that is refused has made nothing: no run folder, no lock, nothing to tidy up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from vidur_ext import cli

SMALL = {
    "training": {
        "total_requests": 80, "episode_requests": 80,
        "output_root": "outputs", "torch_threads": 1,
    },
    "ppo_config": {"rollout_len": 32, "minibatch_size": 8, "counterfactual_share": 0.25},
    "checkpointing": {"checkpoint_dir": "outputs/checkpoints", "validation_freq": None},
    "parallel_training": {"num_envs": 1},
    "evaluation": {"enabled": False},
}  # fmt: skip
ON_VIDUR = (
    "simulation.engine=vidur", "ppo_config.advantage=gae", "warmstart.method=imitation",
)  # fmt: skip


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Run ``vidur-ppo``, which must refuse and leave all as it is; return what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    (tmp_path / "empty.csv").touch()
    (tmp_path / "no_policy.pt").write_bytes(b"x")
    for folder in ("set", "mine"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine" / "config.json").touch()
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("not/mounted")

    def run(command: str, *arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        words = ["vidur-ppo", command, "--config", "small.json", *arguments]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        assert sorted(tmp_path.rglob("*")) == before
        return capsys.readouterr().err

    return run


def settings(*keys: str) -> list[str]:
    return [word for text in keys for word in ("--set", text)]


WHAT_CANNOT_RUN = [
    (["--trace", "gone.csv"], "gone.csv: there is no such trace"),
    (["--trace", "empty.csv"], "empty.csv: "),
    (["--trace", "set"], "set: "),
    (
        settings("cluster.replica_scheduler=vllm", "cluster.max_tokens_in_batch=4096"),
        "cluster.max_tokens_in_batch=4096: raise it",
    ),
    (settings("cluster.num_blocks=100"), "raise cluster.num_blocks"),
    (settings("ppo_config.rollout_len=8000000", "cluster.num_replicas=200"), "lower one of them"),
    (settings(*ON_VIDUR, "simulation.predictor=random_forrest"), "Vidur's hub need a network"),
    (
        settings(
            *ON_VIDUR, "simulation.predictor=local_random_forrest", "simulation.profile_dir=set"
        ),
        "mlp.csv is missing",
    ),
    (settings("monitoring.wandb=online"), "W&B: http://127.0.0.1:9 cannot be reached"),
    (settings("checkpointing.fork_from_checkpoint=gone.pt"), "gone.pt: no such checkpoint"),
    (settings("checkpointing.resume_from_checkpoint=gone.pt"), "gone.pt: no such checkpoint"),
    (settings("checkpointing.resume_step=3"), "no checkpoint of PPO step 3"),
    (["--resume", "no_policy.pt"], "no_policy.pt: incomplete"),
    (["--external-pretrain", "no_policy.pt", "--use-external"], "no_policy.pt: "),
    (["--external-pretrain", "gone.pt"], "gone.pt: "),
    (settings("training.output_root=file"), "file"),
    (settings("training.output_root=nowhere"), "nowhere is a link that leads nowhere"),
    (settings("checkpointing.checkpoint_dir=file/ck"), "file/ck: "),
    (settings("checkpointing.checkpoint_dir=nowhere/ck"), "nowhere"),
    (settings("training.output_root=/proc/outputs"), "/proc/outputs"),
    (settings("checkpointing.checkpoint_dir=/proc/ck"), "/proc/ck: "),
    (["--output-dir", "a\nb"], "choose another one"),
    (["--output-dir", "mine"], "--output-dir mine: config.json in it is of no run"),
    (["--output-dir", "file"], "file"),
    (["--output-dir", "file/run"], "file/run"),
]


@pytest.mark.parametrize(("arguments", "message"), WHAT_CANNOT_RUN, ids=lambda part: str(part)[:40])
@pytest.mark.parametrize(
    "mode", [(), ("--chunk-mode", "--chunk-size", "40")], ids=["plain", "chunks"]
)
def test_a_training_that_cannot_run_makes_nothing(refused, mode, arguments, message):
    assert message in refused("train", *mode, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--demonstrations", "set"],
        ["--demonstrations", "gone"],
        ["--demonstrations", "no_policy.pt"],
    ],
)
def test_demonstrations_that_are_none_make_nothing(refused, arguments):
    assert arguments[1] in refused("train", *arguments)


@pytest.mark.parametrize("arguments", [["--chunk-mode", "--chunk-size", "7"]])
def test_chunks_that_cannot_be_planned_make_nothing(refused, arguments):
    assert "--chunk-size" in refused("train", *arguments, *settings("parallel_training.num_envs=2"))
