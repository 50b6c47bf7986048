"""The manifest: readable, strict, and of a known version."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ppo_scheduler.checkpoint.manifest import Manifest, parse_manifest
from ppo_scheduler.checkpoint.unusable import UnusableCheckpoint

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
        **keys,
    }
    return Manifest(**content)


def test_a_manifest_comes_back_with_its_types():
    read = parse_manifest(manifest().to_json(), HERE)
    assert read == manifest()
    assert [type(value) for value in read.facts.values()] == [int, float, str]


def test_a_person_can_read_it():
    text = manifest().to_json().decode()
    assert json.loads(text)["schema_version"] == 1
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
    ],
)
def test_what_would_not_come_back_is_not_written(keys):
    with pytest.raises(ValueError, match=next(iter(keys))):
        manifest(**keys)


def test_a_newer_version_is_told_apart_from_damage():
    content = json.dumps({"schema_version": 2, "anything": "else"}).encode()
    with pytest.raises(UnusableCheckpoint, match=r"schema_version 2.*newer program") as caught:
        parse_manifest(content, HERE)
    assert caught.value.path == HERE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{torn", "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON"),
        (b"[1]", "is not a manifest"),
        (b"{}", "file: Field required"),
        (manifest().to_json().replace(b"128,", b'"128",'), "ppo_step: .*valid integer"),
    ],
)
def test_bad_manifests_name_the_checkpoint_and_the_reason(content, reason):
    with pytest.raises(UnusableCheckpoint, match=rf"00000128\.pt: .*00000128\.json .*{reason}"):
        parse_manifest(content, HERE)


def test_it_recognises_its_own_data_only():
    assert manifest().misfit(b"data") is None
    assert "3 bytes, its manifest says 4" in str(manifest().misfit(b"dat"))
    assert "SHA-256" in str(manifest().misfit(b"dbta"))
