"""A run is checked where it is made."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("completed_at", [2.5, 2.0, 10.0, 6.0], "request 3: completed_at is before prefill"),
        ("scheduled_at", [0.0, 0.5, 2.5, 3.0], "request 1: scheduled_at is before arrived_at"),
        ("prefill_completed_at", [0.5, np.nan, 4.0, 7.0], "request 1: prefill_completed_at is not"),
        ("replica", [0, 1, 2, 0], "request 2: its replica is not in 0..1"),
        ("replica", [0, 1, -1, 0], "request 2: its replica is not in 0..1"),
        ("replica", [0, 1, 0], "replica has 3 entries, arrived_at has 4"),
        ("replica", [0.0, 1.0, 0.5, 0.0], "replica holds float64; expected int64"),
        ("found_tokens", [0, 0, 30, 0], "request 2: its found_tokens are not a part of its prompt"),
        ("preemptions", [0, -1, 0, 0], "request 1: its preemptions are negative"),
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
    one |= {"found_tokens": np.array([0]), "preemptions": np.array([0])}
    times = dict.fromkeys(
        ("arrived_at", "scheduled_at", "prefill_completed_at", "completed_at"), arrived
    )
    with pytest.raises(UserError, match="request 0: it took no time"):
        make_run(**times, **one)


def test_a_run_without_requests_is_refused(make_run) -> None:
    with pytest.raises(UserError, match="at least one request"):
        make_run(table=RequestTable.from_rows([]))


def test_arrays_are_copies_that_cannot_change(make_run) -> None:
    replica = np.array([0, 1, 0, 0])
    run = make_run(replica=replica)
    replica[0] = 1
    assert run.replica[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        run.replica[0] = 1


def test_the_digest_sees_the_workload_and_nothing_else(make_run) -> None:
    digest = make_run("ppo", 0).table.digest()
    assert make_run("lor", 5, replica=np.array([1, 1, 1, 1])).table.digest() == digest
    assert make_run(decode_tokens=np.array([5, 1, 4, 4])).table.digest() != digest
