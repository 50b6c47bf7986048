"""Whatever happens while saving: a whole checkpoint is there, and nothing was lost."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from ppo_scheduler.errors import UserError

MANY = 200


def files(stores) -> set[str]:
    return {path.name for path in stores.folder.iterdir()}


def test_the_newest_is_published_with_its_manifest_and_link(stores, save):
    path = save(stores.open(), 128, reason="end", facts={"episode": 7})
    assert path == stores.folder / "checkpoint_step_00000128.pt"
    assert files(stores) == {path.name, path.with_suffix(".json").name, "latest.pt", ".lock"}
    assert os.readlink(stores.folder / "latest.pt") == path.name
    [info] = stores.open().checkpoints()
    assert (info.path, info.manifest.reason, info.manifest.facts) == (path, "end", {"episode": 7})
    assert info.manifest.created_at == "2030-01-02T03:04:05+00:00"
    assert info.manifest.size_bytes == path.stat().st_size


def test_old_ones_rotate_also_those_of_earlier_processes(stores, save):
    stores.with_steps(1, 2, 3, max_checkpoints=3)
    store = stores.open(max_checkpoints=3)
    store.load("latest")
    for step in (4, 5):
        save(store, step)
    assert stores.steps() == [3, 4, 5]
    assert len(list(stores.folder.glob("*.json"))) == 3


def test_without_a_series_only_the_newest_is_kept(stores):
    stores.with_steps(1, 2, 3, max_checkpoints=3, incremental_checkpoints=False)
    assert stores.steps() == [3]


def test_the_same_step_can_be_saved_again(stores, save):
    store = stores.open(incremental_checkpoints=False)
    save(store, 8, content=1)
    save(store, 8, content=2, reason="end")
    assert stores.latest_step() == 2
    assert len(list(stores.folder.glob("checkpoint*"))) == 2


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
@pytest.mark.parametrize("step", [2, 1], ids=["next step", "same step"])
def test_interrupted_write_preserves_checkpoint(
    tmp_path, make_stores, save, faulty_disk, step, kill
):
    seen = set()
    for fail_at in range(MANY):
        stores = make_stores(tmp_path / str(fail_at))
        store = stores.open(incremental_checkpoints=False)
        save(store, 1, content=1)
        with faulty_disk(fail_at, kill=kill) as disk:
            save(store, step, content=2)
        stores.end_all()
        seen.add(stores.latest_step())
        if not disk.failed:
            assert stores.latest_step() == 2
            break
        after = stores.open(incremental_checkpoints=False)
        after.load("latest")
        save(after, 3)
        assert stores.steps() == [3]
        assert len(list(stores.folder.glob("*checkpoint_step*"))) == 2
        stores.end_all()
    assert 10 < fail_at < MANY - 1
    assert seen == {1, 2}


def test_failed_save_does_not_prune(stores, save, faulty_disk):
    store = stores.open(max_checkpoints=2)
    save(store, 1)
    save(store, 2)
    for fail_at in range(4):
        with (
            faulty_disk(fail_at, kill=False),
            pytest.raises(UserError, match=r"00000003\.pt was not saved .*No space"),
        ):
            save(store, 3)
        assert stores.steps() == [1, 2]
        assert not [name for name in files(stores) if name.endswith(".tmp")]


def test_what_is_not_on_the_disk_yet_gets_no_name(stores, save, faulty_disk):
    store = stores.open()
    store.prepare()
    with faulty_disk(None, kill=False) as disk:
        path = save(store, 1)
    stem, data = path.stem, path.name
    handles = [name for name, _ in disk.calls]
    changes = [(name, target) for name, target in disk.calls if name != "fsync"]
    assert changes[:4] == [
        ("write", f".{data}.tmp"),
        ("write", f".{stem}.json.tmp"),
        ("replace", f"{stem}.json"),
        ("replace", data),
    ]
    assert handles[:8] == [
        "write",
        "fsync",
        "write",
        "fsync",
        "replace",
        "fsync",
        "replace",
        "fsync",
    ]


@pytest.mark.parametrize("refusal", [OSError(errno.EPERM, "no links"), NotImplementedError()])
def test_without_symlinks_it_says_so_once_and_resume_latest_works(
    stores, save, monkeypatch, caplog, refusal
):
    def refuse(*_):
        raise refusal

    monkeypatch.setattr(os, "symlink", refuse)
    store = stores.open()
    with caplog.at_level(logging.WARNING):
        save(store, 1)
        save(store, 2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no latest.pt" in caplog.text
    assert not os.path.lexists(stores.folder / "latest.pt")
    assert stores.latest_step() == 2


@pytest.mark.parametrize("leftover", ["missing.pt", "checkpoint_step_00000001.pt"])
def test_any_latest_link_is_repointed(stores, save, leftover):
    stores.folder.mkdir()
    (stores.folder / "latest.pt").symlink_to(leftover)
    (stores.folder / ".latest.pt.tmp").symlink_to("left by a killed process")
    save(stores.open(), 5)
    assert os.readlink(stores.folder / "latest.pt") == "checkpoint_step_00000005.pt"


def test_a_latest_that_is_a_file_is_moved_aside_not_replaced(stores, save):
    stores.folder.mkdir()
    (stores.folder / "latest.pt").write_bytes(b"somebody's only copy")
    save(stores.open(), 5)
    assert os.readlink(stores.folder / "latest.pt") == "checkpoint_step_00000005.pt"
    [kept] = stores.folder.glob("archive/*/latest.pt")
    assert kept.read_bytes() == b"somebody's only copy"


def test_a_bug_in_a_tree_leaves_everything_as_it_was(stores, save):
    store = stores.open()
    save(store, 1)
    before = files(stores)
    with pytest.raises(TypeError, match="counters"):
        save(store, 2, tree={"counters": {1, 2}})
    assert files(stores) == before
