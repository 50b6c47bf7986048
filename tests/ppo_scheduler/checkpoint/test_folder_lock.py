"""One training per folder, and a folder that cannot be used is told before training."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from ppo_scheduler.checkpoint import publish as publishing
from ppo_scheduler.checkpoint.names import Retention
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError

HOLDER = """
import sys
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
store = CheckpointStore(CheckpointingSection(checkpoint_dir=sys.argv[1]))
store.prepare()
print("locked", flush=True)
sys.stdin.read()
"""


def test_two_trainings_cannot_share_a_folder(stores, save):
    first, second = stores.open(), stores.open()
    first.prepare()
    for write in (second.prepare, second.set_aside, lambda: save(second, 1)):
        with pytest.raises(UserError, match=rf"process {os.getpid()} is writing checkpoints there"):
            write()
    first.close()
    save(second, 1)
    assert stores.steps() == [1]


def test_another_process_is_named_and_its_lock_dies_with_it(stores):
    stores.folder.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(stores.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"process {holder.pid} is writing"):
            stores.open().prepare()
        holder.kill()
    stores.open().prepare()
    assert (stores.folder / ".lock").read_text() == f"{os.getpid()}\n"


def test_reading_needs_no_lock(stores, save):
    writer = stores.open()
    save(writer, 1)
    assert stores.latest_step() == 1
    save(writer, 2)
    assert stores.steps() == [1, 2]


def test_prepare_makes_the_folder_and_leaves_only_the_lock(stores):
    store = stores.open()
    store.prepare()
    store.prepare()
    assert [path.name for path in stores.folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("deeper", ["", "below/it"])
def test_a_file_in_place_of_the_folder_is_told_with_the_way_out(tmp_path, make_stores, deeper):
    (tmp_path / "taken").write_text("a file")
    stores = make_stores(tmp_path / "taken" / deeper)
    with pytest.raises(UserError, match=r"cannot be saved there .*enable_checkpoints=false"):
        stores.open().prepare()
    with pytest.raises(UserError, match="cannot be listed"):
        stores.open().checkpoints()


def test_a_folder_without_room_is_told_before_training(stores, faulty_disk):
    store = stores.open()
    stores.folder.mkdir()
    for fail_at in range(1, 4):
        with (
            faulty_disk(fail_at, kill=False),
            pytest.raises(UserError, match="cannot be saved there"),
        ):
            store.prepare()
    stores.open().prepare()


def test_a_folder_that_was_replaced_gets_nothing_any_more(stores, save):
    """Two trainings must not write to one folder, and the lock was on the other one."""
    first, second = stores.open(), stores.open()
    save(first, 1)
    shutil.move(stores.folder, stores.folder.with_name("moved"))
    save(second, 7)
    before = sorted(stores.folder.iterdir())
    for write in (
        lambda: save(first, 2),
        first.set_aside,
        lambda: first.prune(Retention("last_n", 1)),
    ):
        with pytest.raises(UserError, match="was replaced while this training held"):
            write()
    assert sorted(stores.folder.iterdir()) == before
    assert [path.name for path in stores.folder.with_name("moved").glob("*.pt")]


@pytest.mark.parametrize("lent", [False, True])
def test_a_folder_that_was_removed_is_made_anew_and_locked(stores, save, make_stores, caplog, lent):
    first, second = stores.open(), stores.open()
    save(first, 1)
    if lent:
        section = CheckpointingSection(checkpoint_dir=str(stores.folder))
        first = CheckpointStore(section, lent_lock=first.lock_handle)
        save(first, 2)
    shutil.rmtree(stores.folder)
    save(first, 3)
    save(first, 4)
    assert stores.steps() == [3, 4]
    [told] = [one.getMessage() for one in caplog.records if "made anew" in one.getMessage()]
    assert told.startswith(f"{stores.folder}: was removed or moved away")
    with pytest.raises(UserError, match="is writing checkpoints there"):
        save(second, 7)


def test_what_somebody_put_into_the_place_of_a_removed_folder_is_moved_aside(stores, save):
    """It may be the only copy of another training's checkpoints: rotation must not reach it."""
    first = stores.open()
    save(first, 1)
    shutil.move(stores.folder, stores.folder.with_name("moved"))
    shutil.copytree(
        stores.folder.with_name("moved"), stores.folder, ignore=lambda *_: {".lock"}, symlinks=True
    )
    save(first, 2)
    assert stores.steps() == [2]
    assert [path.name for path in stores.folder.glob("archive/*/*.pt")] == [
        "checkpoint_step_00000001.pt"
    ]


def test_a_folder_that_is_replaced_while_a_checkpoint_is_staged_gets_none(
    stores, save, monkeypatch
):
    first, second = stores.open(), stores.open()
    save(first, 1)
    real = publishing.write_staged

    def replace_folder(path, content):
        real(path, content)
        if path.suffix == ".json" and "00000002" in path.name:
            shutil.move(stores.folder, stores.folder.with_name("moved"))
            save(second, 7)

    monkeypatch.setattr(publishing, "write_staged", replace_folder)
    with pytest.raises(UserError, match="was replaced"):
        save(first, 2)
    assert stores.steps() == [7]


def test_who_is_lent_the_lock_writes_for_its_owner(stores, save, make_stores):
    owner, other = stores.open(), stores.open()
    owner.prepare()
    section = CheckpointingSection(checkpoint_dir=str(stores.folder))
    helper = CheckpointStore(section, lent_lock=owner.lock_handle)
    save(helper, 1)
    helper.close()
    with pytest.raises(UserError, match="is writing checkpoints there"):
        save(other, 2)
    assert stores.steps() == [1]
