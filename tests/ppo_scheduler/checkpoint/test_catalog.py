"""The list of a folder: everything that is there, also what cannot be read."""

from __future__ import annotations

import pytest

from ppo_scheduler.checkpoint.reading import catalog, newest, recorded_keep_every
from ppo_scheduler.errors import UserError


def test_it_lists_by_step_with_the_newest_last(stores):
    stores.with_steps(9, 100, 10)
    entries = catalog(stores.folder, archives=True)
    assert [entry.step for entry in entries] == [9, 10, 100]
    assert newest(entries) is entries[-1]
    assert {entry.archive for entry in entries} == {None}
    assert [entry.manifest.ppo_step for entry in entries] == [9, 10, 100]


def test_archived_ones_come_first_and_only_if_asked_for(stores):
    stores.with_steps(1, 2)
    stores.open().set_aside()
    stores.end_all()
    stores.with_steps(5)
    assert [entry.step for entry in catalog(stores.folder, archives=False)] == [5]
    entries = catalog(stores.folder, archives=True)
    assert [(entry.step, entry.archive) for entry in entries] == [
        (1, "20300102T030405Z"),
        (2, "20300102T030405Z"),
        (5, None),
    ]


def test_archives_alone_have_no_newest(stores):
    stores.with_steps(1)
    stores.open().set_aside()
    assert newest(catalog(stores.folder, archives=True)) is None


def test_what_cannot_be_read_is_listed_with_the_reason(stores):
    stores.with_steps(1, 2, 3)
    (stores.folder / "checkpoint_step_00000002.json").write_text("torn")
    (stores.folder / "checkpoint_step_00000003.json").unlink()
    one, two, three = entries = catalog(stores.folder, archives=False)
    assert one.problem is None
    assert (two.manifest, three.manifest) == (None, None)
    assert "is not JSON" in two.problem
    assert "00000003.json beside it: No such file" in three.problem
    assert newest(entries) is one


def test_stray_files_are_not_listed(stores):
    stores.with_steps(1)
    (stores.folder / "policy.pt").write_bytes(b"mine")
    (stores.folder / "archive").mkdir()
    (stores.folder / "archive" / "note.txt").write_text("mine")
    assert [entry.step for entry in catalog(stores.folder, archives=True)] == [1]


def test_keep_every_is_that_of_the_last_training(stores, save):
    store = stores.open()
    save(store, 1, settings={"checkpointing.keep_every": 5})
    assert recorded_keep_every(catalog(stores.folder, archives=False)) == 5
    save(store, 2, settings={"checkpointing.keep_every": None})
    assert recorded_keep_every(catalog(stores.folder, archives=False)) is None
    assert recorded_keep_every([]) is None


def test_an_empty_folder_is_empty_and_a_missing_one_an_error(tmp_path):
    assert catalog(tmp_path, archives=True) == []
    with pytest.raises(UserError, match=r"absent: there is no such folder.*--dir"):
        catalog(tmp_path / "absent", archives=False)
