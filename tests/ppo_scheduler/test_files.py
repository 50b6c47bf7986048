"""A written file is the old one or the new one; a lock is held by one, or shared by the living."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import (
    FileLock,
    GrowingFile,
    check_place,
    is_held,
    move,
    refuse_links_out,
    share,
    staged_path,
    wait_until_free,
    write_file,
)

DOING = "is at work there. Wait for it"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_had_the_name_is_replaced(path):
    for content in (b"old", b"new and longer"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_refused_write_leaves_what_was_there_and_nothing_else(path, monkeypatch, call, old):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space left on device"):
        write_file(path, b"new")
    assert names(path.parent) == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old


def test_why_a_write_was_refused_is_told_also_where_nothing_can_be_tidied(path, monkeypatch):
    def refuse(text):
        def call(*arguments):
            raise OSError(5, text)

        return call

    monkeypatch.setattr(os, "replace", refuse("the first"))
    monkeypatch.setattr(os, "unlink", refuse("the second"))
    with pytest.raises(OSError, match="the first"):
        write_file(path, b"new")


def test_a_growing_file_that_was_removed_grows_again_from_its_head(tmp_path):
    path = tmp_path / "below" / "file"
    path.parent.mkdir()
    file = GrowingFile(path, b"head ")
    file.append(b"one ")
    assert path.read_bytes() == b"head one "
    path.unlink()
    path.parent.rmdir()
    file.append(b"two ")
    file.append(b"three ")
    assert path.read_bytes() == b"head two three "


@pytest.mark.parametrize("make", [os.symlink, os.link])
@pytest.mark.parametrize("staged", [False, True])
def test_a_link_is_replaced_and_what_it_leads_to_is_not_written(path, tmp_path, make, staged):
    other = tmp_path / "precious"
    other.write_bytes(b"precious")
    make(other, staged_path(path) if staged else path)
    write_file(path, b"new")
    assert (path.read_bytes(), path.is_symlink()) == (b"new", False)
    assert other.read_bytes() == b"precious"
    assert names(tmp_path) == ["file", "precious"]


def test_links_that_lead_out_of_a_folder_are_refused(tmp_path):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "inside").symlink_to("below")
    refuse_links_out(folder)
    for target in ("..", "../nowhere", "/"):
        (folder / "out").unlink(missing_ok=True)
        (folder / "out").symlink_to(target)
        with pytest.raises(UserError, match=r"out: is a link that leads out of the folder"):
            refuse_links_out(folder)


def test_an_empty_file_of_others_is_no_lock(path, tmp_path):
    (tmp_path / "empty").touch()
    os.link(tmp_path / "empty", path)
    with pytest.raises(UserError, match="holds something else"):
        FileLock(path, DOING)
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_pipe_in_the_place_of_a_lock_does_not_make_anybody_wait(path):
    os.mkfifo(path)
    assert not is_held(path)
    with pytest.raises((UserError, OSError)):
        FileLock(path, DOING)


@pytest.mark.parametrize("by", ["another", "a link"])
def test_what_took_the_place_of_a_growing_file_is_left_alone(path, tmp_path, by):
    file = GrowingFile(path)
    file.append(b"one ")
    path.rename(tmp_path / "moved")
    other = path if by == "another" else tmp_path / "precious"
    other.write_bytes(b"precious")
    if by == "a link":
        path.symlink_to(other)
    with pytest.raises(OSError, match=r"another file is in its place|symbolic links"):
        file.append(b"two ")
    assert other.read_bytes() == b"precious"
    assert (tmp_path / "moved").read_bytes() == b"one "


def test_a_place_is_checked_before_hours_of_work_and_stays_as_it_is(path, tmp_path):
    check_place(path)
    check_place(tmp_path / "new" / "newer" / "file")
    path.touch()
    check_place(path)  # it will be replaced
    (tmp_path / "link").symlink_to("nowhere")
    for bad in (tmp_path, path / "below", path / "far" / "below", tmp_path / "link" / "file"):
        with pytest.raises(OSError, match="irectory"):
            check_place(bad)
    assert names(tmp_path) == ["file", "link"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_mode_follows_the_umask(path, umask, mode):
    previous = os.umask(umask)
    try:
        write_file(path, b"")
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == mode


def test_both_folders_of_a_move_are_synced(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def note(handle):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    for folder in ("from", "to"):
        (tmp_path / folder).mkdir()
    (tmp_path / "from" / "file").touch()
    monkeypatch.setattr(os, "fsync", note)
    move(tmp_path / "from" / "file", tmp_path / "to" / "file")
    move(tmp_path / "to" / "file", tmp_path / "to" / "renamed")
    assert synced == ["to", "from", "to"]


def test_a_lock_has_one_holder_who_is_named(path):
    with FileLock(path, DOING):
        told = rf"{path.parent}: process {os.getpid()} is at work there\. Wait for it"
        with pytest.raises(UserError, match=told):
            FileLock(path, DOING)
        with pytest.raises(UserError, match=told):
            wait_until_free(path, DOING, 0.0, print)
        assert is_held(path)
    assert not is_held(path)
    FileLock(path, DOING).release()


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_a_lock_that_is_a_link_to_a_file_of_others_leaves_it_as_it_is(path, tmp_path, make):
    precious = tmp_path / "precious"
    precious.write_text("8 years of work", encoding="utf-8")
    make(precious, path)
    with pytest.raises((UserError, OSError), match=r"something else|symbolic links"):
        FileLock(path, "is here")
    assert precious.read_text(encoding="utf-8") == "8 years of work"


def test_who_waits_is_told_once_for_whom(path, monkeypatch):
    lock, waits, told = FileLock(path, DOING), [], []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            lock.release()

    monkeypatch.setattr("time.sleep", sleep)
    wait_until_free(path, DOING, 60.0, told.append)
    assert (len(waits), told) == (3, [str(os.getpid())])


SHARER = """
import sys
from ppo_scheduler.files import share
stream = open(sys.argv[1], "a")
share(stream)
print("shared", flush=True)
sys.stdin.read()
"""


def test_a_shared_file_is_held_until_the_last_one_is_gone_however_it_ends(path):
    path.touch()
    assert not is_held(path)
    with path.open("a") as mine:
        share(mine)
        other = subprocess.Popen(
            [sys.executable, "-c", SHARER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdout.readline() == b"shared\n"
    assert is_held(path)
    other.kill()
    other.communicate()
    assert not is_held(path)


def test_what_is_not_there_is_not_held(path):
    assert not is_held(path)
    wait_until_free(path, DOING, 0.0, print)
    assert not path.exists()


def test_a_lock_stands_only_where_it_was_taken(path):
    with FileLock(path, DOING) as lock:
        assert lock.stands()
        path.rename(path.with_name("moved"))
        assert not lock.stands()
        with FileLock(path, DOING) as other:
            assert other.stands()
            assert not lock.stands()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_what_is_no_lock_is_not_overwritten(path, link):
    precious = path.with_name("precious")
    precious.write_text("somebody's")
    link(precious, path)
    with pytest.raises((UserError, OSError)):
        FileLock(path, DOING)
    assert precious.read_text() == "somebody's"


def test_a_lent_lock_is_held_until_its_last_holder_ends(path):
    owner = FileLock(path, DOING)
    lent = FileLock.lent(path, owner.handle)
    owner.release()
    assert is_held(path)
    with pytest.raises(UserError, match=f"process {os.getpid()} is at work"):
        FileLock(path, DOING)
    lent.release()
    assert not is_held(path)


def test_a_lock_that_cannot_be_opened_is_not_called_free(path):
    path.symlink_to(path)  # a circle: as little to be opened as a file of somebody else
    for ask in (is_held, lambda path: wait_until_free(path, DOING, 0.0, print)):
        with pytest.raises(UserError, match="cannot be seen"):
            ask(path)
