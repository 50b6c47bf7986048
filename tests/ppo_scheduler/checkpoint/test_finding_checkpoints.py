"""The newest good one is found; bad ones are named; nothing that is read is changed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil

import pytest
import torch

from ppo_scheduler.checkpoint import reading
from ppo_scheduler.checkpoint.manifest import parse_manifest
from ppo_scheduler.errors import UserError


def flip_a_bit(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_empty(path) -> None:
    os.truncate(path, 0)


def lose_the_manifest(path) -> None:
    path.with_suffix(".json").unlink()


def tear_the_manifest(path) -> None:
    truncate(path.with_suffix(".json"))


def edit_the_manifest(path) -> None:
    manifest = path.with_suffix(".json")
    manifest.write_text(manifest.read_text().replace('"interval"', '"end"'))


def lose_a_part(path) -> None:
    tree = torch.load(path, weights_only=True)
    del tree["counters"]
    torch.save(tree, path)
    certify(path)


def take_the_place_of_another(path) -> None:
    """Somebody renamed the pair of step 2."""
    for suffix in (".pt", ".json"):
        shutil.copy(path.with_name(f"checkpoint_step_00000002{suffix}"), path.with_suffix(suffix))


DAMAGES = [
    (flip_a_bit, "SHA-256"),
    (truncate, "bytes, its manifest says"),
    (make_empty, "it has 0 bytes"),
    (lose_the_manifest, r"checkpoint_step_00000003\.json is not beside it"),
    (tear_the_manifest, "is not JSON"),
    (edit_the_manifest, "was edited: its manifest_sha256 is another"),
    (lose_a_part, "incomplete: lacks the part counters"),
    (take_the_place_of_another, "renamed: its manifest says PPO step 2"),
]


def certify(path, **changes) -> None:
    """Let the manifest beside a file describe it."""
    data = path.read_bytes()
    manifest = parse_manifest(path.with_suffix(".json").read_bytes(), path)
    changes |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.with_suffix(".json").write_bytes(manifest.model_copy(update=changes).to_json())


def path_of(stores, step):
    return stores.folder / f"checkpoint_step_{step:08d}.pt"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_bad_one_is_named_and_the_previous_good_one_is_used(stores, damage, reason):
    stores.with_steps(1, 2, 3)
    damage(path_of(stores, 3))
    loaded = stores.open().load("latest")
    assert (loaded.path, loaded.manifest.ppo_step) == (path_of(stores, 2), 2)
    [(path, why)] = loaded.skipped
    assert path == path_of(stores, 3)
    with pytest.raises(UserError, match=reason):
        raise UserError(why)


@pytest.mark.parametrize(("damage", "reason"), [d for d in DAMAGES if d[0] is not lose_a_part])
def test_a_damage_is_found_and_named_without_parsing(stores, damage, reason, caplog):
    stores.with_steps(1, 2, 3)
    damage(path_of(stores, 3))
    with caplog.at_level(logging.WARNING):
        assert stores.open().latest().path == path_of(stores, 2)
    found = stores.open().find("latest")
    [(path, why)] = found.skipped
    assert (found.path, path) == (path_of(stores, 2), path_of(stores, 3))
    assert f"skipped {path}: {why}" in caplog.text
    assert re.search(reason, why)


def test_what_only_parsing_finds_is_skipped_when_it_is_loaded(stores):
    """It has the bytes its manifest promises: a program wrote it so."""
    stores.with_steps(1, 2, 3)
    lose_a_part(path_of(stores, 3))
    assert stores.open().latest().path == path_of(stores, 3)
    loaded = stores.open().load("latest")
    assert (loaded.path, loaded.skipped[0][0]) == (path_of(stores, 2), path_of(stores, 3))


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_bad_one_that_was_named_is_an_error(stores, damage, reason):
    stores.with_steps(2, 3)
    damage(path_of(stores, 3))
    with pytest.raises(UserError, match=rf"00000003\.pt: .*{reason}"):
        stores.open().load(path_of(stores, 3))


def test_no_good_one_is_an_error_that_names_all(stores):
    stores.with_steps(1, 2)
    flip_a_bit(path_of(stores, 1))
    truncate(path_of(stores, 2))
    assert stores.open().latest() is None
    with pytest.raises(UserError, match=r"(?s)00000002\.pt: damaged.*00000001\.pt: damaged"):
        stores.open().load("latest")


def test_without_a_folder_there_is_nothing_and_none_is_made(stores):
    assert stores.open().latest() is None
    assert stores.open().checkpoints() == []
    with pytest.raises(UserError, match=r"no checkpoint to resume from.*--resume never"):
        stores.open().load("latest")
    assert not stores.folder.exists()


def test_stray_files_are_ignored_and_left_alone(stores):
    stores.folder.mkdir()
    (stores.folder / "notes.txt").write_text("mine")
    (stores.folder / "policy.pt").write_bytes(b"mine")
    (stores.folder / "checkpoint_step_99999999.pt").mkdir()
    (stores.folder / ".checkpoint_step_00000009.pt.tmp").write_bytes(b"half")
    stores.with_steps(1, 2, max_checkpoints=1)
    assert stores.steps() == [2]
    assert stores.latest_step() == 2
    assert (stores.folder / "notes.txt").read_text() == "mine"
    assert (stores.folder / "policy.pt").read_bytes() == b"mine"
    assert not (stores.folder / ".checkpoint_step_00000009.pt.tmp").exists()


def test_the_newest_is_found_by_step_whatever_latest_says(stores):
    stores.with_steps(9, 10, 100)
    (stores.folder / "latest.pt").unlink()
    (stores.folder / "latest.pt").symlink_to("checkpoint_step_00000009.pt")
    assert stores.latest_step() == 100


def test_list_is_ordered_by_step(stores):
    stores.with_steps(9, 10, 100)
    assert stores.steps() == [9, 10, 100]


def test_the_latest_link_can_be_named(stores):
    stores.with_steps(1, 2)
    loaded = stores.open().load(str(stores.folder / "latest.pt"))
    assert loaded.path == path_of(stores, 2).resolve()
    assert loaded.tree["counters"]["ppo_step"] == 2


def test_a_dangling_link_is_an_error_if_named_and_else_ignored(stores):
    stores.with_steps(1, 2)
    path_of(stores, 2).unlink()
    with pytest.raises(
        UserError, match=r"latest\.pt: no such checkpoint \(the link leads nowhere\)"
    ):
        stores.open().load(stores.folder / "latest.pt")
    assert stores.latest_step() == 1


def test_links_in_a_circle_are_an_error(tmp_path, stores):
    (tmp_path / "a.pt").symlink_to("b.pt")
    (tmp_path / "b.pt").symlink_to("a.pt")
    with pytest.raises(UserError, match=r"a\.pt: cannot be read"):
        stores.open().load(tmp_path / "a.pt")


def test_a_missing_path_or_a_folder_is_an_error(stores):
    stores.with_steps(1)
    with pytest.raises(UserError, match=r"gone\.pt: no such checkpoint; .*--resume latest"):
        stores.open().load("gone.pt")
    with pytest.raises(UserError, match=r"is a folder; name a checkpoint_step_\*\.pt"):
        stores.open().load(stores.folder)


def test_a_pair_can_be_read_from_anywhere_and_stays_as_it_is(stores, save, tmp_path):
    stores.with_steps(1, 2)
    backup = tmp_path / "backup"
    shutil.copytree(stores.folder, backup, symlinks=True)
    before = content(backup)
    store = stores.open(max_checkpoints=1)
    assert store.load(backup / "checkpoint_step_00000001.pt").manifest.ppo_step == 1
    save(store, 3)
    assert content(backup) == before


def test_a_malicious_checkpoint_is_refused_though_its_manifest_fits(stores, tmp_path):
    class Intruder:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "marker"),)

    stores.with_steps(1, 2)
    path = path_of(stores, 2)
    torch.save({"weights": Intruder()}, path)
    certify(path)
    with pytest.raises(UserError, match=r"00000002\.pt: refused"):
        stores.open().load(path)
    assert stores.open().load("latest").manifest.ppo_step == 1
    assert not (tmp_path / "marker").exists()


def test_a_reader_does_not_mix_two_publications_of_a_step(stores, save, monkeypatch):
    writer = stores.open()
    save(writer, 7, content=1)
    real, reads = reading._content, []

    def read_and_be_overtaken(path):
        data = real(path)
        reads.append(path.suffix)
        if len(reads) == 1:
            save(writer, 7, content=2)
        return data

    monkeypatch.setattr(reading, "_content", read_and_be_overtaken)
    assert stores.latest_step() == 2
    assert reads[0] == ".json"


def test_a_reader_whose_checkpoint_is_pruned_finds_the_newer_one(stores, save, monkeypatch):
    writer = stores.open(max_checkpoints=1)
    save(writer, 1)
    real, calls = reading.file_names, []

    def list_and_be_overtaken(folder):
        files = real(folder)
        calls.append(folder)
        if len(calls) == 1:
            save(writer, 2)
        return files

    monkeypatch.setattr(reading, "file_names", list_and_be_overtaken)
    assert stores.latest_step() == 2
    assert len(calls) == 2


def test_a_step_can_be_named(stores):
    stores.with_steps(9, 10, 100)
    loaded = stores.open().load(10)
    assert (loaded.path.name, loaded.manifest.ppo_step) == ("checkpoint_step_00000010.pt", 10)


def test_a_step_that_is_not_there_is_an_error_that_names_those_that_are(stores):
    with pytest.raises(UserError, match="no checkpoint of PPO step 3; there are: none at all"):
        stores.open().load(3)
    stores.with_steps(9, 10)
    with pytest.raises(UserError, match="no checkpoint of PPO step 3; there are: 9, 10"):
        stores.open().load(3)


def test_a_step_whose_replacement_was_interrupted_is_found(stores):
    stores.with_steps(9, 10)
    for suffix in (".pt", ".json"):
        path = path_of(stores, 10).with_suffix(suffix)
        path.rename(path.with_name(f"{path.stem}.superseded{suffix}"))
    assert step_of(stores.open().load(10)) == 10
    assert stores.latest_step() == 10


def step_of(loaded) -> int:
    return int(loaded.tree["counters"]["ppo_step"])
