"""Nothing is written, moved or deleted through a link: it may lead to another's only copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ppo_scheduler.checkpoint.manifest import manifest_path
from ppo_scheduler.checkpoint.names import Retention
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import staged_path


@pytest.fixture
def precious(tmp_path) -> Path:
    """A file of others."""
    path = tmp_path / "precious" / "file"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    return path


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_links_under_the_names_that_a_save_uses_are_replaced(stores, save, precious, make):
    stores.with_steps(1)
    store = stores.open()
    path = stores.folder / "checkpoint_step_00000002.pt"
    names = [
        path, manifest_path(path), staged_path(path), staged_path(manifest_path(path)),
        stores.folder / ".probe", stores.folder / ".latest.pt.tmp", stores.folder / "archive.tmp",
    ]  # fmt: skip
    for name in names:
        make(precious, name)
    store.load(1)
    save(store, 2)
    assert precious.read_bytes() == b"precious"
    assert stores.open().find("latest").manifest.ppo_step == 2


def test_a_checkpoint_that_is_a_link_is_read_and_only_the_link_is_deleted(stores, save, tmp_path):
    stores.with_steps(1)
    away = tmp_path / "away"
    away.mkdir()
    for file in stores.folder.glob("checkpoint_step_*"):
        file.rename(away / file.name)
        file.symlink_to(away / file.name)
    store = stores.open()
    before = {file.name: file.read_bytes() for file in away.iterdir()}
    assert store.load("latest").manifest.ppo_step == 1
    save(store, 1)
    save(store, 2)
    store.prune(Retention("last_n", 1))
    assert stores.steps() == [2]
    assert {file.name: file.read_bytes() for file in away.iterdir()} == before


def test_an_archive_that_is_a_link_is_refused_before_anything_is_moved(stores, save, tmp_path):
    stores.with_steps(1)
    (tmp_path / "away").mkdir()
    (stores.folder / "archive").symlink_to(tmp_path / "away")
    for use in (lambda s: s.set_aside(), lambda s: save(s, 2), lambda s: s.prune_archives(0)):
        with pytest.raises(UserError, match=r"archive: is a link.*Put a folder in its place"):
            use(stores.open())
    assert stores.steps() == [1]
    assert not list((tmp_path / "away").iterdir())


@pytest.mark.parametrize("which", ["both", "the manifest"])
def test_a_pipe_makes_nobody_wait(stores, which):
    stores.with_steps(1, 2)
    path = stores.folder / "checkpoint_step_00000002.pt"
    for file in (path, manifest_path(path)) if which == "both" else (manifest_path(path),):
        file.unlink()
        os.mkfifo(file)
    with pytest.raises(UserError, match="no regular file"):
        stores.open().find(path)
    assert stores.open().find("latest").manifest.ppo_step == 1
    assert stores.steps()[0] == 1
