"""The manifest: readable, strict, and of a known version."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ppo_scheduler.checkpoint.manifest import Manifest, UnusableCheckpoint, parse_manifest
from ppo_scheduler.checkpoint.migrations import SCHEMA_VERSION

HERE = Path("folder/checkpoint_step_00000128.pt")


def manifest(**keys: Any) -> Manifest:
    content: dict[str, Any] = {
        "file": HERE.name,
        "ppo_step": 128,
        "global_step": 512,
        "created_at": "2030-01-02T03:04:05+00:00",
        "size_bytes": 4,
        "sha256": hashlib.sha256(b"data").hexdigest(),
        "versions": {"torch": "2.13.0"},
        "config_digest": "abc",
        "run_dir": "outputs/Läufe/1",
        "num_replicas": 4,
        "reason": "interval",
        "facts": {"episode": 3, "share": 1.0, "note": "ok"},
        "schema_version": SCHEMA_VERSION,
        "val_score": -0.30000000000000004,
        "settings": {"training.seed": 3, "workload.qps": None, "warmstart.levels": [0.7, 1e-07]},
        "parts": ["learner", "rollout"],
        **keys,
    }
    return Manifest(**content)


def sealed(whole: Manifest, **changes: Any) -> bytes:
    """Return a manifest whose checksum is right and whose content is not."""
    document = {**json.loads(whole.to_json()), **changes}
    del document["manifest_sha256"]
    body = json.dumps(document, indent=2).removesuffix("\n}").encode()
    checksum = hashlib.sha256(body).hexdigest()
    return body + b',\n  "manifest_sha256": "' + checksum.encode() + b'"\n}\n'


def test_a_manifest_comes_back_with_its_types():
    read = parse_manifest(manifest().to_json(), HERE)
    assert read == manifest()
    assert [type(value) for value in read.facts.values()] == [int, float, str]
    assert type(read.val_score) is float


def test_a_person_can_read_it():
    text = manifest().to_json().decode()
    keys = list(json.loads(text))
    assert keys[:3] == ["schema_version", "file", "ppo_step"]
    assert keys[-2:] == ["settings", "manifest_sha256"], "the long and the cryptic come last"
    assert '\n  "ppo_step": 128,\n' in text
    assert "Läufe" in text


@pytest.mark.parametrize(
    "keys",
    [
        {"created_at": "2030-01-02T03:04:05"},
        {"created_at": "yesterday"},
        {"num_replicas": 0},
        {"ppo_step": 1.5},
        {"facts": {"loss": math.nan}},
        {"colour": "red"},
        {"reason": "whim"},
        {"val_score": math.inf},
        {"settings": {"training.seed": {1, 2}}},
        {"schema_version": SCHEMA_VERSION + 1},
    ],
)
def test_what_would_not_come_back_is_not_written(keys):
    with pytest.raises(ValueError, match=next(iter(keys))):
        manifest(**keys)


def test_a_newer_version_is_told_apart_from_damage():
    newer = SCHEMA_VERSION + 1
    content = json.dumps({"schema_version": newer, "anything": "else"}).encode()
    reason = rf"schema_version {newer}.*newer program"
    with pytest.raises(UnusableCheckpoint, match=reason) as caught:
        parse_manifest(content, HERE)
    assert caught.value.path == HERE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{torn", "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON"),
        (b"[1]", "is not a manifest"),
        (b"{}", "schema_version: missing"),
        (b'{"schema_version": 1}', "Field required"),
        (b'{"schema_version": 0}', "Field required"),
        (b'{"schema_version": 2}', "is damaged or was edited"),
        (b"[" * 100_000, "is not JSON"),
        (manifest().to_json().replace(b"128,", b"129,"), "its manifest_sha256 is another"),
        (manifest().to_json().replace(b"\n", b"\r\n"), "its manifest_sha256 is another"),
        (sealed(manifest(), ppo_step="128"), "ppo_step: .*valid integer"),
        (sealed(manifest(), colour="red"), "colour: Extra inputs"),
        (sealed(manifest(), reason="whim"), "reason: Input should be 'start', 'interval'"),
    ],
)
def test_bad_manifests_name_the_checkpoint_and_the_reason(content, reason):
    with pytest.raises(UnusableCheckpoint, match=rf"00000128\.pt: .*00000128\.json .*{reason}"):
        parse_manifest(content, HERE)


def test_every_flipped_bit_is_refused():
    content = bytearray(manifest().to_json())
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UnusableCheckpoint):
            parse_manifest(bytes(content), HERE)
        content[bit // 8] ^= 1 << bit % 8
    assert parse_manifest(bytes(content), HERE) == manifest()


def test_no_flipped_bit_of_a_number_passes_as_the_same_number():
    """0.30000000000000005 is read as 0.30000000000000004, 1E-7 as 1e-7."""
    whole = manifest().to_json()
    for damaged in (whole.replace(b"00004", b"00005"), whole.replace(b"1e-7", b"1E-7")):
        assert damaged != whole
        assert json.loads(damaged) == json.loads(whole)
        with pytest.raises(UnusableCheckpoint, match="manifest_sha256"):
            parse_manifest(damaged, HERE)


def test_truncated_anywhere_it_is_refused():
    whole = manifest().to_json()
    for length in range(len(whole)):
        with pytest.raises(UnusableCheckpoint):
            parse_manifest(whole[:length], HERE)


def test_it_recognises_its_own_data_only():
    assert manifest().misfit(b"data") is None
    assert "3 bytes, its manifest says 4" in str(manifest().misfit(b"dat"))
    assert "SHA-256" in str(manifest().misfit(b"dbta"))
