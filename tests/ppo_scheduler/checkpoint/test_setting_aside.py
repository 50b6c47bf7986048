"""A training never overwrites or prunes the checkpoints of another one."""

from __future__ import annotations

import pytest


def pairs(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("checkpoint_step_*")}


def archived(stores):
    return sorted(stores.folder.glob("archive/*/checkpoint_step_*.pt"))


def test_set_aside_keeps_every_byte(stores):
    stores.with_steps(1, 2, 3)
    before = pairs(stores.folder)
    aside = stores.open().set_aside()
    assert aside == stores.folder / "archive" / "20300102T030405Z"
    assert len(before) == 6
    assert pairs(aside) == before
    assert pairs(stores.folder) == {}
    assert not (stores.folder / "latest.pt").is_symlink()


def test_an_archived_training_can_be_resumed_by_its_link(stores, save):
    stores.with_steps(1, 2)
    store = stores.open(max_checkpoints=1)
    aside = store.set_aside()
    before = pairs(aside)
    assert store.load(aside / "latest.pt").manifest.ppo_step == 2
    save(store, 3)
    assert pairs(aside) == before
    assert stores.steps() == [3]


def test_nothing_to_move_is_none(stores):
    store = stores.open()
    assert store.set_aside() is None
    assert not (stores.folder / "archive").exists()


def test_set_aside_twice_moves_once(stores):
    stores.with_steps(1)
    store = stores.open()
    assert store.set_aside() is not None
    assert store.set_aside() is None


def test_two_in_one_second_get_two_folders(stores, save):
    for _ in range(3):
        store = stores.open()
        save(store, 1)
        store.set_aside()
        store.close()
    names = [path.parent.name for path in archived(stores)]
    assert names == ["20300102T030405Z", "20300102T030405Z_2", "20300102T030405Z_3"]


def test_incomplete_ones_are_kept_too(stores):
    stores.with_steps(1, 2)
    (stores.folder / "checkpoint_step_00000002.json").unlink()
    aside = stores.open().set_aside()
    assert [path.name for path in sorted(aside.glob("checkpoint_step_*.pt"))] == [
        "checkpoint_step_00000001.pt",
        "checkpoint_step_00000002.pt",
    ]


def test_a_publication_without_a_resume_prunes_no_other_training(stores, save):
    stores.with_steps(100, 200)
    before = pairs(stores.folder)
    store = stores.open(max_checkpoints=1)
    save(store, 50)
    save(store, 100)
    assert stores.steps() == [100]
    assert pairs(archived(stores)[0].parent) == before


def test_resuming_an_older_one_moves_its_other_future_aside(stores, save):
    stores.with_steps(100, 200, 300)
    store = stores.open(max_checkpoints=2)
    store.load(stores.folder / "checkpoint_step_00000100.pt")
    assert stores.steps() == [100, 200, 300], "reading changes nothing"
    save(store, 150)
    assert stores.steps() == [100, 150]
    assert [path.name for path in archived(stores)] == [
        "checkpoint_step_00000200.pt",
        "checkpoint_step_00000300.pt",
    ]


def test_a_training_that_goes_back_leaves_its_own_future_too(stores, save):
    store = stores.open()
    for step in (100, 200, 300):
        save(store, step)
    store.load(stores.folder / "checkpoint_step_00000100.pt")
    save(store, 150)
    assert stores.steps() == [100, 150]
    assert len(archived(stores)) == 2


def test_resuming_from_elsewhere_leaves_this_folders_training_whole(
    stores, make_stores, save, tmp_path
):
    stores.with_steps(1, 2)
    elsewhere = make_stores(tmp_path / "elsewhere")
    elsewhere.with_steps(2)
    store = stores.open()
    store.load(elsewhere.folder / "checkpoint_step_00000002.pt")
    save(store, 3)
    assert stores.steps() == [3]
    assert len(archived(stores)) == 2


def test_resuming_the_newest_goes_on_with_its_series(stores, save):
    stores.with_steps(1, 2)
    store = stores.open()
    store.load("latest")
    save(store, 2, content=5)
    save(store, 3)
    assert stores.steps() == [1, 2, 3]
    assert archived(stores) == []


def test_a_damaged_newer_one_is_kept_for_inspection(stores, save):
    stores.with_steps(1, 2)
    damaged = stores.folder / "checkpoint_step_00000002.pt"
    damaged.write_bytes(b"damaged")
    store = stores.open()
    store.load("latest")
    save(store, 2)
    assert [path.read_bytes() for path in archived(stores)] == [b"damaged"]
    assert stores.latest_step() == 2


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
def test_an_interrupted_move_loses_nothing_and_can_be_finished(
    tmp_path, make_stores, faulty_disk, kill
):
    for fail_at in range(100):
        stores = make_stores(tmp_path / str(fail_at))
        stores.with_steps(1, 2)
        before = pairs(stores.folder)
        store = stores.open()
        with faulty_disk(fail_at, kill=kill) as disk:
            store.set_aside()
        stores.end_all()
        if list(stores.folder.glob("checkpoint_step_*.pt")):
            assert stores.latest_step() == 2, "the newest goes last"
        finished = stores.open().set_aside()
        assert disk.failed or finished is None
        found = {}
        for path in archived(stores):
            loaded = stores.open().load(path)
            found |= {path.name: path.read_bytes()}
            found |= {path.with_suffix(".json").name: path.with_suffix(".json").read_bytes()}
            assert loaded.path == path.resolve()
        assert found == before
        assert stores.steps() == []
        stores.end_all()
        if not disk.failed:
            break
    assert 10 < fail_at < 99
