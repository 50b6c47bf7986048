"""``vidur-ppo checkpoints`` as an operator uses it, in a terminal, behind a real training."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

COMMAND = str(Path(sys.executable).with_name("vidur-ppo"))
TINY = {
    "training": {"total_requests": 90, "episode_requests": 60},
    "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
    "ppo_config": {"rollout_len": 32, "minibatch_size": 16, "critic_warmup_updates": 1},
    "statistics_stabilization": {"collect_steps": 16},
    "checkpointing": {"checkpoint_dir": "saved", "checkpoint_interval": 20, "keep_every": 40},
    "warmstart": {"enabled": False},
    "parallel_training": {"num_envs": 1},
    "evaluation": {"enabled": False},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("mein Ordner äöü")
    (place / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    done = subprocess.run(
        [COMMAND, "train", "--config", "tiny.json", "--resume", "never", "--quiet"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place


def _hear_ctrl_c() -> None:
    """A shell that runs the tests in the background makes them, and all below, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def terminal(folder: Path, *arguments: str) -> pexpect.spawn:
    return pexpect.spawn(
        COMMAND,
        ["checkpoints", *arguments, "--config", "tiny.json"],
        cwd=str(folder),
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 80),
        preexec_fn=_hear_ctrl_c,
    )


def output(child: pexpect.spawn) -> tuple[int, str]:
    child.expect(pexpect.EOF)
    text = re.sub(r"\x1b\[[0-9;]*m", "", child.before)
    child.close()
    return child.exitstatus, text


def steps(folder: Path) -> list[int]:
    return [int(path.stem[-8:]) for path in sorted((folder / "saved").glob("checkpoint_*.pt"))]


def test_an_operator_looks_deletes_and_exports(trained) -> None:
    assert steps(trained) == [20, 40, 60, 80, 90]

    status, text = output(terminal(trained, "list"))
    rows = [line.split() for line in text.splitlines()]
    assert status == 0
    assert [row[0] for row in rows[2:7]] == ["20", "P", "60", "P", "*"]
    assert max(map(len, text.splitlines())) <= 80

    status, text = output(terminal(trained, "verify"))
    assert (status, text.count("ok ")) == (0, 5)

    status, text = output(terminal(trained, "diff", "20", "latest"))
    assert status == 0
    assert "learner.counters.global_step" in text

    child = terminal(trained, "prune", "--keep", "1")
    child.expect(r"to be deleted: 2 .*; kept: 3")
    child.expect(r"Delete them\? \[y/N\]")
    child.sendintr()
    assert output(child)[0] == 130
    assert len(steps(trained)) == 5

    child = terminal(trained, "prune", "--keep", "1")
    child.expect(r"\[y/N\]")
    child.sendline("")
    status, text = output(child)
    assert (status, len(steps(trained))) == (0, 5)
    assert "nothing was deleted" in text

    child = terminal(trained, "prune", "--keep", "1")
    child.expect(r"\[y/N\]")
    child.sendline("y")
    assert output(child)[0] == 0
    assert steps(trained) == [40, 80, 90], "permanent ones stay"

    status, _ = output(terminal(trained, "export", "latest", "--output", "mine.pt"))
    assert status == 0
    [run] = (trained / "outputs" / "warmstart_training_optimized").iterdir()
    assert (trained / "mine.pt").read_bytes() == (run / "policy.pt").read_bytes()
