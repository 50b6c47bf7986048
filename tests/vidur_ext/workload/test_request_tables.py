"""A request table holds what it was given, or says which request is impossible."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable

ROWS = [(0.0, 10, 3), (0.5, 20, 1), (0.5, 1, 7), (2.0, 5, 5)]


def test_rows_become_columns() -> None:
    table = RequestTable.from_rows(ROWS)
    assert len(table) == 4
    assert table.arrived_at.tolist() == [0.0, 0.5, 0.5, 2.0]
    assert table.prefill_tokens.tolist() == [10, 20, 1, 5]
    assert table.decode_tokens.tolist() == [3, 1, 7, 5]
    assert table.prefill_tokens.dtype == np.int64


def test_columns_cannot_be_changed_from_outside() -> None:
    times = np.array([0.0, 1.0])
    tokens = np.array([1, 2])
    table = RequestTable(times, tokens, tokens)
    times[0] = 9.0
    assert table.arrived_at[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        table.prefill_tokens[0] = 5


def test_a_rate_scale_divides_times_and_leaves_tokens() -> None:
    table = RequestTable.from_rows(ROWS)
    faster = table.at_rate(4.0)
    assert faster.arrived_at.tolist() == [0.0, 0.125, 0.125, 0.5]
    assert faster.prefill_tokens.tolist() == table.prefill_tokens.tolist()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_rate_scale_is_refused(scale: float) -> None:
    with pytest.raises(UserError, match="rate scale"):
        RequestTable.from_rows(ROWS).at_rate(scale)


def test_a_slice_keeps_its_times() -> None:
    part = RequestTable.from_rows(ROWS).slice(1, 3)
    assert part.arrived_at.tolist() == [0.5, 0.5]
    assert part.decode_tokens.tolist() == [1, 7]


def test_the_digest_changes_with_every_column() -> None:
    rows = [list(row) for row in ROWS]
    digests = {RequestTable.from_rows(ROWS).digest()}
    for column in range(3):
        changed = [row.copy() for row in rows]
        changed[3][column] += 1
        digests.add(RequestTable.from_rows([tuple(row) for row in changed]).digest())  # type: ignore[misc]
    assert len(digests) == 4
    assert RequestTable.from_rows(ROWS).digest() in digests


@pytest.mark.parametrize(
    ("times", "prompts", "outputs", "text"),
    [
        ([1.0, 0.5], [1, 1], [1, 1], "request 1 arrives at 0.5 s, before request 0 at 1.0 s"),
        ([0.0, float("nan")], [1, 1], [1, 1], "request 1 arrives at nan s"),
        ([-1.0, 0.0], [1, 1], [1, 1], "request 0 arrives at -1.0 s"),
        ([0.0, 1.0], [1, 0], [1, 1], "request 1 has 0 prefill_tokens"),
        ([0.0, 1.0], [1, 1], [0, 1], "request 0 has 0 decode_tokens"),
        ([0.0, 1.0], [1], [1, 1], "one length"),
        ([0.0, 1.0], [1.5, 2.0], [1, 1], "must hold integers"),
    ],
)
def test_impossible_requests_are_named(
    times: list[float], prompts: list[float], outputs: list[int], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        RequestTable(np.array(times), np.array(prompts), np.array(outputs))
