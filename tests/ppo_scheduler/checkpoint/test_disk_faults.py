"""Every call that changes the disk fails once, and what is there stays whole."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler import files
from ppo_scheduler.checkpoint.names import Retention
from ppo_scheduler.checkpoint.saver import Saver, SavesFailed
from ppo_scheduler.errors import UserError

MANY = 200
KINDS = pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
KEEP_ONE = Retention("last_n", 1)


def begun_afresh(stores, save):
    """The folder holds another training's checkpoints."""
    stores.with_steps(1, 2)
    return stores.open()


def resumed_in_the_middle(stores, save):
    """The folder holds another future of the checkpoint that is continued."""
    stores.with_steps(1, 2, 5)
    store = stores.open()
    store.load(1)
    return store


def with_latest_as_a_file(stores, save):
    """Somebody copied the folder with links followed."""
    stores.with_steps(1)
    link = stores.folder / "latest.pt"
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    store = stores.open()
    store.load("latest")
    return store


SITUATIONS = [begun_afresh, resumed_in_the_middle, with_latest_as_a_file]


@KINDS
@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_interrupted_publication_loses_no_training(
    tmp_path, make_stores, save, faulty_disk, situation, kill
):
    for fail_at in range(MANY):
        stores = make_stores(tmp_path / str(fail_at))
        store = situation(stores, save)
        before = {path.name for path in stores.folder.glob("checkpoint_step_*.pt")}
        with faulty_disk(fail_at, kill=kill) as faulty:
            save(store, 9)
        stores.end_all()
        everywhere = [*stores.folder.rglob("checkpoint_step_*.pt")]
        assert before <= {path.name for path in everywhere}
        for path in everywhere:
            assert f"{stores.open().load(path).manifest.ppo_step:08d}" in path.name
        again = stores.open()
        if again.latest() is None:
            assert situation is begun_afresh, "all of another training is in the archive"
        else:
            again.load("latest")
        save(again, 10)
        assert stores.latest_step() == 10
        assert os.readlink(stores.folder / "latest.pt") == "checkpoint_step_00000010.pt"
        stores.end_all()
        if not faulty.failed:
            break
    assert 10 < fail_at < MANY - 1


def test_only_what_was_not_published_counts_as_a_failed_save(
    tmp_path, make_stores, save, faulty_disk, describe, small_tree, caplog
):
    """The disk refuses one call after the other: to publish, to repoint the link, to prune."""
    saved_in_spite_of = []
    for fail_at in range(MANY):
        stores = make_stores(tmp_path / str(fail_at))
        stores.with_steps(1, 2, max_checkpoints=2)
        store = stores.open(max_checkpoints=2)
        store.load("latest")
        store.prepare()
        saver = Saver(store, background=False)
        caplog.clear()
        with faulty_disk(fail_at, kill=False) as faulty:
            path = saver.save_now(lambda: small_tree(9), describe(9))
        if not faulty.failed:
            break
        if path is None:
            with pytest.raises(SavesFailed, match="No space left"):
                saver.raise_failures()
        else:
            saver.raise_failures()
            assert stores.latest_step() == 9
            assert "00000009.pt is saved, but" in caplog.text
            saved_in_spite_of.append(faulty.calls[fail_at])
        save(store, 10)
        assert stores.steps() == ([2, 10] if path is None and 9 not in stores.steps() else [9, 10])
        assert os.readlink(stores.folder / "latest.pt") == "checkpoint_step_00000010.pt"
    assert 10 < fail_at < MANY - 1
    assert saved_in_spite_of == [
        ("unlink", ".latest.pt.tmp"),
        ("symlink", ".latest.pt.tmp"),
        ("replace", "latest.pt"),
        ("fsync", saved_in_spite_of[3][1]),
        ("unlink", "checkpoint_step_00000001.pt"),
        ("unlink", "checkpoint_step_00000001.json"),
    ]


@KINDS
def test_an_interrupted_pruning_leaves_whole_checkpoints(tmp_path, make_stores, faulty_disk, kill):
    for fail_at in range(MANY):
        stores = make_stores(tmp_path / str(fail_at))
        stores.with_steps(1, 2, 3, 4)
        store = stores.open()
        with faulty_disk(fail_at, kill=kill) as faulty:
            store.prune(KEEP_ONE)
        stores.end_all()
        assert stores.latest_step() == 4
        for path in stores.folder.glob("checkpoint_step_*.pt"):
            stores.open().load(path)
        stores.open().prune(KEEP_ONE)
        assert stores.steps() == [4]
        assert len(list(stores.folder.glob("checkpoint_step_*"))) == 2
        stores.end_all()
        if not faulty.failed:
            break
    assert 8 < fail_at < MANY - 1


EVENTS = {
    "os.rename": "replace",
    "os.remove": "unlink",
    "os.symlink": "symlink",
    "os.mkdir": "mkdir",
}


class Witness:
    """Counts what the interpreter says of changes to the disk, whoever makes them."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.watching = False
        sys.addaudithook(self._hear)  # stays until the process ends, deaf most of the time

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.watching and event in EVENTS:
            self.seen[EVENTS[event]] += 1
        elif self.watching and event == "open" and {*"wx"} & {*(arguments[1] or "")}:
            self.seen["write"] += 1

    @contextmanager
    def watch(self):
        self.seen.clear()
        self.watching = True
        try:
            yield
        finally:
            self.watching = False


@pytest.fixture(scope="module")
def witness():
    return Witness()


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("operation", ["publish", "set_aside", "prune", "prepare"])
def test_no_change_of_the_disk_escapes_the_faults(
    stores, save, faulty_disk, witness, situation, operation
):
    store = situation(stores, save)
    act = {
        "publish": lambda: save(store, 9),
        "set_aside": store.set_aside,
        "prune": lambda: store.prune(KEEP_ONE),
        "prepare": store.prepare,
    }[operation]
    with faulty_disk(None, kill=False) as faulty, witness.watch():
        act()
    counted = Counter(name for name, _ in faulty.calls)
    assert counted.pop("fsync") > 0
    assert counted == witness.seen


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written_is_told_before_training(stores, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    stores.with_steps(1)
    monkeypatch.setattr(files, "open", refuse, raising=False)
    told = rf"cannot be saved there \({os.strerror(number)}\).*enable_checkpoints=false"
    with pytest.raises(UserError, match=told):
        stores.open().prepare()
    assert stores.latest_step() == 1, "reading still works"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_made_is_told_before_training(stores, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    with pytest.raises(UserError, match=os.strerror(number)):
        stores.open().prepare()


def test_a_folder_that_turns_read_only_keeps_what_it_has(stores, save, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    store = stores.open()
    save(store, 1)
    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "symlink"):
            patch.setattr(os, name, refuse)
        patch.setattr(files, "open", refuse, raising=False)
        with pytest.raises(UserError, match="Read-only file system"):
            save(store, 2)
    assert stores.steps() == [1]
    save(store, 3)
    assert stores.latest_step() == 3


def free_bytes(monkeypatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


@pytest.mark.parametrize(
    ("keys", "checkpoints"),
    [
        ({}, 6),
        ({"max_checkpoints": 2}, 3),
        ({"max_checkpoints": 100}, 6),
        ({"max_checkpoints": None}, 6),
        ({"incremental_checkpoints": False}, 2),
    ],
)
def test_a_disk_with_too_little_room_is_told_before_training(
    stores, save, monkeypatch, keys, checkpoints
):
    store = stores.open(**keys)
    tree = {"weights": "w" * 1_000_000}
    one = save(store, 1, tree=tree).stat().st_size
    free_bytes(monkeypatch, checkpoints * one)
    store.check_space(tree)
    free_bytes(monkeypatch, checkpoints * one - 1)
    with pytest.raises(UserError, match=rf"MB are free, .* need {checkpoints}\.0 MB\. Free space"):
        store.check_space(tree)


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_of_a_checkpoint_is_found(stores, position, bit):
    if not stores.steps():
        stores.with_steps(1)
    [path] = stores.folder.glob("checkpoint_step_*.pt")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[position % len(damaged)] ^= 1 << bit
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged: its SHA-256"):
        stores.open().load(path)
    assert stores.open().latest() is None
    path.write_bytes(whole)


@given(length=st.integers(0, 10**6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_checkpoint_truncated_anywhere_is_found(stores, length):
    if not stores.steps():
        stores.with_steps(1)
    [path] = stores.folder.glob("checkpoint_step_*.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: length % len(whole)])
    with pytest.raises(UserError, match="bytes, its manifest says"):
        stores.open().load(path)
    path.write_bytes(whole)
