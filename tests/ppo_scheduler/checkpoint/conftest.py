"""A folder, stores on it, small trees, and a disk that fails when told to."""

from __future__ import annotations

import errno
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch

from ppo_scheduler import files
from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.state import StateDict

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def tree_of(step: int) -> StateDict:
    """Return a tree that tells its step."""
    return {"weights": torch.full((3, 2), float(step)), "counters": {"ppo_step": step}}


def step_in(tree: StateDict) -> int:
    """Return the step a tree tells; its weights must tell the same."""
    step = tree["counters"]["ppo_step"]
    assert torch.equal(tree["weights"], tree_of(step)["weights"])
    return int(step)


def description(step: int, **keys: Any) -> Description:
    """Return what a training says of a step."""
    described: dict[str, Any] = {
        "ppo_step": step,
        "global_step": step,
        "reason": "interval",
        "run_dir": "runs/a",
        "config_digest": "d" * 64,
        "num_replicas": 4,
        "val_score": None,
        "versions": {"python": "3.11.7"},
        "facts": {"episode": 2},
        "settings": {"training.seed": 0},
        **keys,
    }
    return Description(**described)


def publish(store: CheckpointStore, step: int, content: int | None = None, **keys: Any) -> Path:
    """Publish ``tree_of(content)`` (the step's own by default) at a step."""
    tree = keys.pop("tree", tree_of(step if content is None else content))
    return store.publish(tree, description(step, **keys))


class Stores:
    """Opens stores on one folder and closes them at the end, as the end of a process would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[CheckpointStore] = []

    def open(self, clock: Callable[[], datetime] = lambda: NOW, **keys: Any) -> CheckpointStore:
        section = CheckpointingSection(checkpoint_dir=str(self.folder), **keys)
        store = CheckpointStore(section, clock)
        self._open.append(store)
        return store

    def end_all(self) -> None:
        for store in self._open:
            store.close()
        self._open.clear()

    def with_steps(self, *steps: int, **keys: Any) -> None:
        """Leave checkpoints of a training that has ended."""
        store = self.open(**keys)
        for step in steps:
            publish(store, step)
        store.close()

    def latest_step(self) -> int:
        loaded = self.open().load("latest")
        assert loaded.skipped == []
        return step_in(loaded.tree)

    def steps(self) -> list[int]:
        return [info.manifest.ppo_step for info in self.open().checkpoints()]


@pytest.fixture
def make_stores():
    made: list[Stores] = []

    def make(folder: Path) -> Stores:
        made.append(Stores(folder))
        return made[-1]

    yield make
    for stores in made:
        stores.end_all()


@pytest.fixture
def stores(make_stores, tmp_path):
    return make_stores(tmp_path / "checkpoints")


@pytest.fixture
def save():
    return publish


@pytest.fixture
def describe():
    return description


@pytest.fixture
def small_tree():
    return tree_of


class Killed(BaseException):
    """The process is no more: nothing may run after it."""


class _TornFile(io.FileIO):
    """Writes half of what it is given."""

    def __init__(self, path: Path, failure: BaseException) -> None:
        super().__init__(path, "w")
        self._failure = failure

    def write(self, data: Any) -> int:
        super().write(data[: len(data) // 2])
        raise self._failure


class FaultyDisk:
    """Counts the calls that change the disk; the one numbered ``fail_at`` (from 0) fails.

    ``kill`` makes it and all later ones raise ``Killed``; otherwise the disk is full, once.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int | None, kill: bool) -> None:
        self.calls: list[tuple[str, str]] = []
        self._fail_at, self._kill = fail_at, kill
        for name in ("replace", "fsync", "symlink", "unlink", "mkdir"):
            faulty = self._faulty(name, getattr(os, name))
            patch.setattr(os, name, faulty)
            if hasattr(pathlib, "_NormalAccessor"):  # Python 3.10 keeps references of its own
                patch.setattr(pathlib._NormalAccessor, name, staticmethod(faulty), raising=False)
        patch.setattr(files, "open", self._open, raising=False)

    @property
    def failed(self) -> bool:
        return self._fail_at is not None and len(self.calls) > self._fail_at

    def _failure(self, name: str, target: object) -> BaseException | None:
        self.calls.append((name, os.path.basename(str(target))))
        number = len(self.calls) - 1
        if self._fail_at is None or number < self._fail_at:
            return None
        if self._kill:
            return Killed()
        return OSError(errno.ENOSPC, "No space left on device") if number == self._fail_at else None

    def _faulty(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*arguments: Any, **keys: Any) -> Any:
            target = arguments[1] if name in ("replace", "symlink") else arguments[0]
            if (failure := self._failure(name, target)) is not None:
                raise failure
            return call(*arguments, **keys)

        return attempt

    def _open(self, path: Path, mode: str) -> Any:
        if (failure := self._failure("write", path)) is not None:
            return _TornFile(path, failure)
        return open(path, mode)


@pytest.fixture
def faulty_disk():
    """Return a context in which the disk fails at one call, and the program with it.

    ``with faulty_disk(3, kill=True)`` swallows ``Killed``, with ``kill=False`` a ``UserError``.
    """

    @contextmanager
    def failing(fail_at: int | None, *, kill: bool) -> Iterator[FaultyDisk]:
        with pytest.MonkeyPatch.context() as patch, suppress(Killed if kill else UserError):
            yield FaultyDisk(patch, fail_at, kill)

    return failing
