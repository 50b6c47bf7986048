"""Demonstrations that are damaged, or a stranger's, are refused in words before they are used."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.sets import DESCRIPTION_FILE, SetDescription, open_set


def columns(priced: bool = True) -> dict[str, Any]:
    """Return the arrays of six decisions of two replicas."""
    rng = np.random.default_rng(0)
    return {
        "format": np.array(2),
        "replica_features": np.array(["waiting", "running"]),
        "context_features": np.array(["prompt_tokens"]),
        "teachers": np.array(["lookahead"]),
        "replicas": rng.normal(size=(6, 2, 2)).astype(np.float32),
        "context": rng.normal(size=(6, 1)).astype(np.float32),
        "action": rng.integers(0, 2, 6),
        "teacher": np.zeros(6, dtype=np.int64),
        "load_level": np.ones(6),
        "costs": rng.random((6, 2 if priced else 0)).astype(np.float32),
    }


def write(path: Path, arrays: dict[str, Any]) -> Path:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize("priced", [True, False])
def test_what_was_written_is_read(tmp_path, priced):
    read = Demonstrations.load(write(tmp_path / "d.npz", columns(priced)))
    assert (len(read), read.priced) == (6, priced)


def nan_in(name: str) -> dict[str, Any]:
    arrays = columns()
    arrays[name] = arrays[name].copy()
    arrays[name].flat[0] = np.nan
    return arrays


STRANGE = {
    "a cost that is nan": nan_in("costs"),
    "a feature that is nan": nan_in("replicas"),
    "a load that is nan": nan_in("load_level"),
    "a choice there is not": {**columns(), "action": np.array([0, 1, 2, 0, 0, 0])},
    "a choice below 0": {**columns(), "action": np.array([0, 1, -1, 0, 0, 0])},
    "a teacher there is not": {**columns(), "teacher": np.ones(6, dtype=np.int64)},
    "fewer costs": {**columns(), "costs": np.zeros((5, 2), dtype=np.float32)},
    "costs of other replicas": {**columns(), "costs": np.zeros((6, 3), dtype=np.float32)},
    "features without names": {**columns(), "replica_features": np.array(["waiting"])},
    "names that are numbers": {**columns(), "teachers": np.array([7])},
    "no decision": {n: c[:0] if n in ("action", "teacher") else c for n, c in columns().items()},
    "another format": {**columns(), "format": np.array(99)},
    "a column of one number": {**columns(), "replicas": np.float32(1.0)},
    "a missing column": {name: c for name, c in columns().items() if name != "costs"},
    "complex numbers": {**columns(), "context": np.zeros((6, 1), dtype=np.complex64)},
}


@pytest.mark.parametrize("arrays", STRANGE.values(), ids=STRANGE)
def test_what_is_not_demonstrations_is_refused(tmp_path, arrays):
    with pytest.raises(UserError, match=r"d\.npz: not a demonstration file of this version"):
        Demonstrations.load(write(tmp_path / "d.npz", arrays))


def test_a_header_that_asks_for_all_memory_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 2, 2)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in columns().items():
            one = io.BytesIO()
            if name == "replicas":
                np.lib.format.write_array_header_1_0(one, header)
            else:
                np.save(one, array)
            archive.writestr(f"{name}.npy", one.getvalue())
    with pytest.raises(UserError, match="not a demonstration file"):
        Demonstrations.load(path)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_refused_or_unchanged(tmp_path, place, bit, cut):
    path = write(tmp_path / "d.npz", columns())
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        read = Demonstrations.load(path)
    except UserError:
        return
    for name in ("replicas", "context", "action", "costs"):
        assert np.array_equal(getattr(read, name), columns()[name])


DESCRIPTION = SetDescription(
    created_at="2026-01-02T03:04:05+00:00",
    teachers=("lookahead",),
    load_levels=(1.0,),
    decisions=6,
    num_replicas=2,
    seed=0,
    workload="22 requests/s",
    engine="compiled",
    observation={"queue_slots": 2},
    schema_digest="0" * 16,
    versions={"numpy": "2"},
    size_bytes=10,
    sha256="0" * 64,
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.text(max_size=3), st.floats()), max_size=2),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from(sorted(SetDescription.model_fields)), value=VALUES)
def test_whatever_a_description_says_it_is_refused_or_read(tmp_path, key, value):
    document = json.loads(DESCRIPTION.to_json()) | {key: value}
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(document), encoding="utf-8")
    try:
        read = open_set(tmp_path).description
    except UserError:
        return
    assert all(text.isprintable() for text in (*read.teachers, read.workload, read.engine))


@pytest.mark.parametrize("key", ["workload", "engine"])
def test_a_description_with_escapes_is_refused(tmp_path, key):
    document = json.loads(DESCRIPTION.to_json()) | {key: "\x1b]0;owned\x07"}
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match="texts that cannot be printed"):
        open_set(tmp_path)
