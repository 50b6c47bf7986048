"""A run is checked where it is made, and survives the disk unchanged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.run_result import RunResult


def test_a_saved_run_comes_back_unchanged(make_run, tmp_path: Path) -> None:
    run = make_run("lor", 7, uses_output_lengths=True)
    run.save(tmp_path / "run.npz")
    loaded = RunResult.load(tmp_path / "run.npz")
    for field in dataclasses.fields(RunResult):
        ours, theirs = getattr(run, field.name), getattr(loaded, field.name)
        assert type(ours) is type(theirs)
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("completed_at", [2.5, 2.0, 10.0, 6.0], "request 3: completed_at is before prefill"),
        ("scheduled_at", [0.0, 0.5, 2.5, 3.0], "request 1: scheduled_at is before arrived_at"),
        ("prefill_completed_at", [0.5, np.nan, 4.0, 7.0], "request 1: prefill_completed_at is not"),
        ("arrived_at", [0.0, 3.0, 2.0, 3.0], "request 2: it arrives before its predecessor"),
        ("decode_tokens", [5, 1, 0, 3], "request 2: decode_tokens is below 1"),
        ("prefill_tokens", [0, 1, 1, 3], "request 0: prefill_tokens is below 1"),
        ("replica", [0, 1, 2, 0], "request 2: its replica is not in 0..1"),
        ("replica", [0, 1, -1, 0], "request 2: its replica is not in 0..1"),
        ("replica", [0, 1, 0], "replica has 3 entries, arrived_at has 4"),
        ("replica", [0.0, 1.0, 0.5, 0.0], "replica holds float64; expected int64"),
        ("num_replicas", 0, "num_replicas is 0"),
        ("decisions_per_second", float("nan"), "decisions_per_second is nan"),
    ],
)
def test_an_impossible_run_is_refused_by_name(make_run, field: str, value, told: str) -> None:
    given = np.array(value) if isinstance(value, list) else value
    with pytest.raises(UserError, match=r"run of lor on seed 3: ") as error:
        make_run("lor", 3, **{field: given})
    assert told in str(error.value)


def test_a_request_that_took_no_time_is_refused(make_run) -> None:
    arrived = np.array([0.0])
    one = {"prefill_tokens": np.array([1]), "decode_tokens": np.array([1]), "replica": [0]}
    times = dict.fromkeys(
        ("arrived_at", "scheduled_at", "prefill_completed_at", "completed_at"), arrived
    )
    with pytest.raises(UserError, match="request 0: it took no time"):
        make_run(**times, **one)


def test_a_run_without_requests_is_refused(make_run) -> None:
    with pytest.raises(UserError, match="at least one request"):
        make_run(arrived_at=np.empty(0))


def test_arrays_are_copies_that_cannot_change(make_run) -> None:
    replica = np.array([0, 1, 0, 0])
    run = make_run(replica=replica)
    replica[0] = 1
    assert run.replica[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        run.replica[0] = 1


def test_the_digest_sees_the_workload_and_nothing_else(make_run) -> None:
    digest = make_run("ppo", 0).workload_digest()
    assert make_run("lor", 5, replica=np.array([1, 1, 1, 1])).workload_digest() == digest
    assert make_run(decode_tokens=np.array([5, 1, 4, 4])).workload_digest() != digest


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.npz.*run the evaluation again"):
        RunResult.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.npz: no such file"):
        RunResult.load(tmp_path / "gone.npz")


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(UserError, match=r"other\.npz: not a readable evaluation run"):
        RunResult.load(path)


def test_pickled_content_is_refused(make_run, tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    run = make_run()
    arrays = {f.name: np.asarray(getattr(run, f.name)) for f in dataclasses.fields(run)}
    np.savez(path, **{**arrays, "scheduler": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(UserError, match=r"evil\.npz: not a readable"):
        RunResult.load(path)


def test_a_stored_run_that_breaks_causality_names_its_file(make_run, tmp_path: Path) -> None:
    path = tmp_path / "late.npz"
    run = make_run()
    arrays = {f.name: np.asarray(getattr(run, f.name)) for f in dataclasses.fields(run)}
    np.savez(path, **{**arrays, "completed_at": np.zeros(4)})
    with pytest.raises(UserError, match=r"late\.npz: run of ppo on seed 0: request 0"):
        RunResult.load(path)
