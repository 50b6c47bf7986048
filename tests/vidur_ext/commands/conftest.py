"""Checkpoints that the real program wrote, and ``vidur-ppo checkpoints`` to look at them."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.reading import load_named
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from vidur_ext import cli

GOLDEN = Path(__file__).parents[2] / "ppo_scheduler" / "checkpoint" / "golden"


class Series:
    """A folder of checkpoints with a real tree."""

    def __init__(self, folder: Path, real: Path) -> None:
        self.folder, self._real = folder, real

    def open(self, age: timedelta = timedelta(0)) -> CheckpointStore:
        section = CheckpointingSection(checkpoint_dir=str(self.folder), max_checkpoints=None)
        return CheckpointStore(section, clock=lambda: datetime.now(timezone.utc) - age)

    def save(
        self,
        *steps: int,
        age: timedelta = timedelta(0),
        scores: dict[int, float] | None = None,
        **changes: Any,
    ) -> None:
        """Save the tree at steps, some with validation scores, as a training that goes on."""
        loaded = load_named(self._real)
        described = loaded.manifest.model_dump(include=set(Description.model_fields)) | changes
        store = self.open(age)
        if self.steps():
            store.load("latest")
        for step in steps:
            described |= {"ppo_step": step, "global_step": step}
            described["val_score"] = (scores or {}).get(step)
            store.publish(loaded.tree, Description(**described))
        store.close()

    def archive(self) -> None:
        store = self.open()
        store.set_aside()
        store.close()

    def path(self, step: int) -> Path:
        return self.folder / f"checkpoint_step_{step:08d}.pt"

    def steps(self) -> list[int]:
        return [int(path.stem[-8:]) for path in sorted(self.folder.glob("checkpoint_step_*.pt"))]

    def contents(self) -> dict[Path, tuple[bytes, int]]:
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in self.folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def real_checkpoint() -> Path:
    [path] = (GOLDEN / "schema_2").glob("*.pt")
    return path


@pytest.fixture
def old_checkpoint() -> Path:
    [path] = (GOLDEN / "schema_1").glob("*.pt")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def series(folder, real_checkpoint) -> Series:
    return Series(folder, real_checkpoint)


@pytest.fixture
def flip_a_bit():
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return flip


@pytest.fixture
def checkpoints(tmp_path, monkeypatch, capsys):
    """Run ``vidur-ppo checkpoints`` in an empty folder; return (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path | int) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vidur-ppo", "checkpoints", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run
