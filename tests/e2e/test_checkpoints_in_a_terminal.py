"""``vidur-ppo checkpoints`` as an operator uses it, in a terminal, behind a real training."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pexpect
import pytest

COMMAND = str(Path(sys.executable).with_name("vidur-ppo"))
TINY = {
    "training": {"total_requests": 90, "episode_requests": 60},
    "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
    "ppo_config": {
        "rollout_len": 32,
        "minibatch_size": 8,
        "critic_warmup_updates": 1,
        "counterfactual_share": 0.25,
    },
    "statistics_stabilization": {"collect_steps": 16},
    "checkpointing": {"checkpoint_dir": "saved", "checkpoint_interval": 20, "keep_every": 40},
    "warmstart": {"enabled": False},
    "parallel_training": {"num_envs": 1},
    "evaluation": {"enabled": False},
}


@pytest.fixture(scope="module")
def trained(new_place):
    place = new_place()
    (place.path / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    done = place.run_command("train", "--config", "tiny.json", "--resume", "never", "--quiet")
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def terminal(warm_python, trained):
    """Start ``vidur-ppo checkpoints`` in a terminal of the usual size."""

    def start(*arguments: str) -> pexpect.spawn:
        command = [COMMAND, "checkpoints", *arguments, "--config", "tiny.json"]
        return warm_python.terminal(command, trained.path, size=(40, 80))

    return start


def output(child: pexpect.spawn) -> tuple[int, str]:
    child.expect(pexpect.EOF)
    text = re.sub(r"\x1b\[[0-9;]*m", "", child.before)
    child.close()
    return child.exitstatus, text


def steps(folder: Path) -> list[int]:
    return [int(path.stem[-8:]) for path in sorted((folder / "saved").glob("checkpoint_*.pt"))]


def test_an_operator_looks_deletes_and_exports(trained, terminal, asked) -> None:
    assert steps(trained.path) == [20, 40, 60, 80, 90]

    status, text = output(terminal("list"))
    rows = [line.split() for line in text.splitlines()]
    assert status == 0
    assert [row[0] for row in rows[2:7]] == ["20", "P", "60", "P", "*"]
    assert max(map(len, text.splitlines())) <= 80

    status, text = output(terminal("verify"))
    assert (status, text.count("ok ")) == (0, 5)

    status, text = output(terminal("diff", "20", "latest"))
    assert status == 0
    assert "learner.counters.global_step" in text

    child = terminal("prune", "--keep", "1")
    child.expect(r"to be deleted: 2 .*; kept: 3")
    asked(child, r"Delete them\? \[y/N\]")
    child.sendintr()
    assert output(child)[0] == 130
    assert len(steps(trained.path)) == 5

    child = terminal("prune", "--keep", "1")
    child.expect(r"\[y/N\]")
    child.sendline("")
    status, text = output(child)
    assert (status, len(steps(trained.path))) == (0, 5)
    assert "nothing was deleted" in text

    child = terminal("prune", "--keep", "1")
    child.expect(r"\[y/N\]")
    child.sendline("y")
    assert output(child)[0] == 0
    assert steps(trained.path) == [40, 80, 90], "permanent ones stay"

    status, _ = output(terminal("export", "latest", "--output", "mine.pt"))
    assert status == 0
    [run] = (trained.path / "outputs" / "warmstart_training_optimized").iterdir()
    assert (trained.path / "mine.pt").read_bytes() == (run / "policy.pt").read_bytes()
