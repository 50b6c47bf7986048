"""The progress file: the same back, whole at every moment, and refused when it cannot be right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.sealed_json import sealed
from vidur_ext.runs.chunk_record import (
    ChunkRecord,
    DamagedProgress,
    TrainingProgress,
    read_progress,
    write_progress,
)

GOLDEN = Path(__file__).parent / "golden" / "training_progress_2.json"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training_progress.json"


def sealed_again(**change: object) -> bytes:
    """Return the golden file with other values, and the checksum of these."""
    document = {**json.loads(GOLDEN.read_text()), **change}
    del document["progress_sha256"]
    return sealed(json.dumps(document, indent=2).encode(), "progress_sha256")


def changed(**change: object) -> TrainingProgress:
    return TrainingProgress(**{**dict(read_progress(GOLDEN)), **change})


def test_a_file_of_version_2_is_read_and_written_as_it_was(path):
    write_progress(path, read_progress(GOLDEN))
    assert path.read_bytes() == GOLDEN.read_bytes()


def test_a_written_file_replaces_the_one_before(path):
    write_progress(path, read_progress(GOLDEN))
    write_progress(path, changed(error_message="ünïcode"))
    assert read_progress(path).error_message == "ünïcode"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\x00" * 512, b"\xff\xfe{}"])
def test_a_damaged_file_is_named_with_the_ways_out(path, content):
    path.write_bytes(content)
    with pytest.raises(DamagedProgress, match="--chunk-mode --resume latest") as caught:
        read_progress(path)
    assert str(path) in str(caught.value)


def test_every_cut_of_a_file_is_damaged(path):
    content = GOLDEN.read_bytes()
    for length in range(0, len(content) - 2, 7):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedProgress):
            read_progress(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_chunks": 4}, "there are 3 chunks, not 4"),
        ({"total_requests": 210}, "not those of total_requests=210 by chunk_size=70"),
        ({"chunk_size": 50}, "not those of total_requests=200 by chunk_size=50"),
        ({"completed_chunks": 2}, "1 chunks are completed, not 2"),
        ({"requests_done": 201}, "requests_done=201"),
        ({"status": "completed"}, "status=completed with 1 completed"),
        ({"status": "sleeping"}, "status"),
        ({"start_time": "2026-11-23T06:06:21"}, "offset"),
        ({"end_time": "yesterday"}, "end_time"),
        ({"qps": "22"}, "qps"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_does_not_add_up_is_damaged(path, change, message):
    path.write_bytes(sealed_again(**change))
    with pytest.raises(DamagedProgress, match=message):
        read_progress(path)


def test_a_newer_version_is_refused_but_not_called_damaged(path):
    path.write_bytes(sealed_again(schema_version=3))
    with pytest.raises(UserError, match="schema_version 3, this program reads 2") as caught:
        read_progress(path)
    assert not isinstance(caught.value, DamagedProgress)


def test_one_of_an_earlier_version_is_made_anew_from_the_checkpoints(path):
    path.write_bytes(sealed_again(schema_version=1))
    with pytest.raises(DamagedProgress, match="of an earlier program"):
        read_progress(path)


def test_an_edited_file_is_damaged_whatever_it_says(path):
    path.write_text(GOLDEN.read_text().replace('"chunk_size": 70', '"chunk_size": 50'))
    with pytest.raises(DamagedProgress, match="is damaged or was edited"):
        read_progress(path)


def test_every_flipped_bit_is_seen(path):
    content = GOLDEN.read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError):
            read_progress(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(UserError, match="cannot be read as a progress file"):
        read_progress(path)


def test_numbers_of_chunks_are_checked_with_their_requests():
    first, second, third = read_progress(GOLDEN).chunks
    with pytest.raises(ValueError, match="not those of"):
        changed(chunks=(second, first, third))
    with pytest.raises(ValueError, match="requests"):
        ChunkRecord(chunk_id=1, status="pending", requests=0, log_file="x")


def test_content_is_synced_before_it_has_its_name_and_the_name_after(path, monkeypatch):
    """Power may go at any moment: what has the name must be on the disk, and the name as well."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(handle):
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def noting_replace(source, target):
        calls.append(("rename", os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write_progress(path, read_progress(GOLDEN))
    staged = f".{path.name}.tmp"
    assert calls == [("fsync", staged), ("rename", path.name), ("fsync", path.parent.name)]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refusing_disk_leaves_the_file_as_it_was(path, monkeypatch, call):
    write_progress(path, read_progress(GOLDEN))

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError, match="No space left on device"):
        write_progress(path, changed(error_message="new"))
    assert path.read_bytes() == GOLDEN.read_bytes()
