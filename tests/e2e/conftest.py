"""Running ``vidur-ppo train`` as an operator does: in a terminal or without one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest
from warm_python import WarmPython

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("vidur-ppo"))
_REQUIRED = ("requirements.txt", "pyproject.toml")
TRAIN = ("train", "--config", "small.json")
SMALL: dict[str, dict[str, object]] = {
    "training": {"total_requests": 120, "episode_requests": 100},
    "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
    "ppo_config": {
        "rollout_len": 32,
        "minibatch_size": 8,
        "critic_warmup_updates": 1,
        "counterfactual_share": 0.25,
    },
    "statistics_stabilization": {"collect_steps": 16},
    "checkpointing": {
        "checkpoint_interval": 25,
        "validation_seeds": 1,
        "validation_requests": 32,
    },
    "warmstart": {
        "rounds": 2,
        "labels_per_round": 32,
        "label_share": 1.0,
        "steps_per_round": 5,
        "demo_requests": 16,
        "epochs": 1,
        "load_levels": [1.0],
        "teachers": ["vllm_dp"],
    },
    "terminal_value": {"enabled": True, "decisions": 16, "horizon": 2, "steps": 5},
    "kl_regularization": {"final_coef": 0.02},
    "parallel_training": {"num_envs": 1, "num_workers": 1},
    "evaluation": {
        "enabled": False,
        "schedulers": ["least_outstanding", "round_robin"],
        "num_seeds": 1,
        "requests": 32,
        "bootstrap_samples": 10,
    },
}


class Place:
    """A working folder with a config, and what trainings leave in it.

    Programs are started warm, but for the scripts; see ``warm_python.py``.
    """

    def __init__(self, path: Path, python: WarmPython) -> None:
        self.path = path
        self._python = python

    def configure(self, **groups: dict[str, object]) -> Place:
        config = {name: {**SMALL.get(name, {}), **groups.get(name, {})} for name in SMALL | groups}
        (self.path / "small.json").write_text(json.dumps(config), encoding="utf-8")
        return self

    def copy_to(self, path: Path) -> Place:
        shutil.copytree(self.path, path, symlinks=True)
        copy = Place(path, self._python)
        if (path / ".venv").exists():
            copy._call_installed()
        return copy

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a training without a terminal."""
        return self.start_command(*TRAIN, *arguments)

    def start_command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``vidur-ppo`` without a terminal."""
        return self._python.popen(
            [COMMAND, *arguments],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a training without a terminal."""
        return self.run_command(*TRAIN, *arguments)

    def terminal(self, *arguments: str) -> pexpect.spawn:
        """Start a training in a terminal."""
        return self.command(*TRAIN, *arguments)

    def run_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``vidur-ppo`` without a terminal."""
        return self._python.run([COMMAND, *arguments], cwd=self.path)

    def command(self, *arguments: str) -> pexpect.spawn:
        """Start ``vidur-ppo`` in a terminal, as the scripts do."""
        return self._python.terminal([COMMAND, *arguments], self.path)

    def with_scripts(self) -> Place:
        """Make the folder a checkout of its own, set up already, with the small config as default.

        Its scripts run in the environment of the tests, whatever that of the project is.
        """
        shutil.copytree(PROJECT / "scripts", self.path / "scripts")
        (self.path / "configs").mkdir()
        shutil.copy(self.path / "small.json", self.path / "configs" / "ppo_warmstart.json")
        for name in _REQUIRED:
            shutil.copy(PROJECT / name, self.path)
        (self.path / ".venv").mkdir()
        (self.path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
        self._call_installed()
        return self

    def _call_installed(self) -> None:
        """Write the stamp that an installation leaves, which knows its place."""
        stamp = hashlib.sha256(os.fsencode(self.path.resolve() / ".venv") + b"\n")
        for name in _REQUIRED:
            stamp.update((self.path / name).read_bytes())
        (self.path / ".venv" / ".requirements.sha256").write_text(stamp.hexdigest() + "\n")

    def script(self, name: str, *arguments: str) -> pexpect.spawn:
        """Start a script of ``with_scripts`` cold, in a terminal, from the project's folder."""
        # Without arguments pexpect would split a command at its spaces.
        return pexpect.spawn(
            "/usr/bin/env",
            [str(self.path / "scripts" / name), *arguments],
            cwd=str(self.path),
            encoding="utf-8",
            timeout=60,
            dimensions=(50, 200),
        )

    @property
    def runs(self) -> list[Path]:
        """Run folders of both kinds."""
        kinds = ("warmstart_training_optimized", "warmstart_external")
        return sorted(p for kind in kinds for p in (self.path / "outputs" / kind).glob("run_*"))

    @property
    def checkpoints(self) -> Path:
        return self.path / "outputs" / "checkpoints"

    @property
    def steps(self) -> list[int]:
        return sorted(
            int(p.stem[-8:]) for p in self.checkpoints.glob("checkpoint_step_????????.pt")
        )

    @property
    def manifest(self) -> dict[str, Any]:
        """Manifest of the newest checkpoint."""
        path = self.checkpoints / f"checkpoint_step_{self.steps[-1]:08d}.json"
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    @property
    def progress_file(self) -> Path:
        [file] = (self.path / "outputs").glob("*/run_*/training_progress.json")
        return file

    @property
    def progress(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.progress_file.read_text(encoding="utf-8"))
        return document

    def log(self, run: int = -1) -> str:
        return (self.runs[run] / "ppo_training.log").read_text(encoding="utf-8")

    def files(self) -> dict[str, int]:
        """Every file with its time of change, but for those that are locked to look around."""
        return {
            str(path): path.stat().st_mtime_ns
            for path in (self.path / "outputs").rglob("*")
            if path.is_file() and path.name not in (".lock", ".run.lock")
        }


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Starts Python programs without the seconds that their imports take."""
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture
def place(warm_python, tmp_path) -> Place:
    """A folder with a space and letters beyond ASCII in its name."""
    path = tmp_path / "mein Ordner äöü"
    path.mkdir()
    return Place(path, warm_python).configure()


@pytest.fixture(scope="session")
def new_place(warm_python, tmp_path_factory) -> Callable[..., Place]:
    """Make further folders of that kind."""

    def make(**groups: dict[str, object]) -> Place:
        path = tmp_path_factory.mktemp("place") / "mein Ordner äöü"
        path.mkdir()
        return Place(path, warm_python).configure(**groups)

    return make


@pytest.fixture(scope="session")
def _trained_once(new_place) -> Place:
    place: Place = new_place()
    result = place.run("--resume", "never")
    assert result.returncode == 0, result.stderr
    return place


@pytest.fixture
def trained(_trained_once, tmp_path) -> Place:
    """The same with a finished training of 120 requests in it; the paths in it are relative."""
    return _trained_once.copy_to(tmp_path / "mein Ordner äöü")


@pytest.fixture
def finished() -> Callable[[pexpect.spawn], tuple[int, str]]:
    """Wait for the end of a terminal's program; return its exit status and what was left to read.

    A status of 128 + n may be an exit or a death by signal n, as in a shell.
    """

    def wait(child: pexpect.spawn) -> tuple[int, str]:
        child.expect(pexpect.EOF)
        child.close()
        status = child.exitstatus
        return (128 + child.signalstatus if status is None else status), child.before

    return wait


@pytest.fixture
def read(finished) -> Callable[[pexpect.spawn], tuple[int, str]]:
    """The same without colours and cursor movements."""

    def wait(child: pexpect.spawn) -> tuple[int, str]:
        status, text = finished(child)
        return status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")

    return wait


@pytest.fixture
def hold(until) -> Callable[..., None]:
    """Stop processes where they are, as Ctrl-Z does; return when they stand still."""

    def stop(process: subprocess.Popen[str], *more: int) -> None:
        for pid in (process.pid, *more):
            os.kill(pid, signal.SIGSTOP)
            until(lambda pid=pid: in_state("T", pid), process)

    return stop


@pytest.fixture
def asked(until) -> Callable[[pexpect.spawn, str], None]:
    """Wait for a question, and until the answer is being read.

    Between the two ``input()`` notices a Ctrl-C only when it is woken by the next key.
    """

    def wait(child: pexpect.spawn, question: str) -> None:
        child.expect(question)
        until(lambda: in_state("S", child.pid), child)

    return wait


def in_state(letter: str, pid: int) -> bool:
    """Tell whether a process sleeps (S), was stopped (T), and so on."""
    return f"State:\t{letter}" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something holds, while a process lives (a terminal's output is read meanwhile)."""

    def wait(holds: Callable[[], bool], process: Any) -> None:
        while not holds():
            if isinstance(process, pexpect.spawn):
                process.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=0.02)
                assert process.isalive(), process.before
            else:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.02)
                assert process.poll() is None, process.communicate()

    return wait
