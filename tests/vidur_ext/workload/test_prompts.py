"""Prompts made of segments: windows, cuts and repetitions share exactly what they should."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.trace_stream import TraceStream

SYSTEM, FIRST, ANSWER, SECOND, OTHER, LAST = range(6)
ROWS = [
    [(SYSTEM, 100), (FIRST, 50)],
    [(SYSTEM, 100), (FIRST, 50), (ANSWER, 20), (SECOND, 30)],
    [(SYSTEM, 60), (OTHER, 10)],
]
PROMPTS = Prompts.of(ROWS, [ANSWER, LAST, 9])


def rows_of(prompts: Prompts) -> list[list[tuple[int, int]]]:
    pairs = list(zip(prompts.segments.tolist(), prompts.tokens.tolist(), strict=True))
    return [pairs[start:stop] for start, stop in pairwise(prompts.first.tolist())]


def text(row: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return a prompt token by token: a token is its segment and its place there."""
    return [(segment, place) for segment, tokens in row for place in range(tokens)]


def table(prompts: Prompts = PROMPTS) -> RequestTable:
    tokens = prompts.lengths
    return RequestTable(np.arange(len(tokens)) * 1.0, tokens, np.full(len(tokens), 20), prompts)


def test_the_segments_of_a_prompt_add_up_to_its_tokens() -> None:
    assert PROMPTS.lengths.tolist() == [150, 200, 70]


def test_a_window_keeps_the_prompts_as_they_are() -> None:
    part = PROMPTS.window(1, 2)
    assert rows_of(part) == ROWS[1:]
    assert part.answers.tolist() == [LAST, 9]


def test_a_cut_takes_from_the_end_and_drops_what_is_left_empty() -> None:
    cut = PROMPTS.cut(np.array([150, 155, 60]))
    assert rows_of(cut) == [
        [(SYSTEM, 100), (FIRST, 50)],
        [(SYSTEM, 100), (FIRST, 50), (ANSWER, 5)],
        [(SYSTEM, 60)],
    ]
    assert cut.answers.tolist() == PROMPTS.answers.tolist()


segments = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=6)


@given(st.lists(st.tuples(segments, st.integers(1, 60)), min_size=1, max_size=8))
def test_what_is_left_of_a_cut_prompt_is_its_beginning(
    cases: list[tuple[list[tuple[int, int]], int]],
) -> None:
    rows, limits = [row for row, _ in cases], [limit for _, limit in cases]
    cut = Prompts.of(rows, [0] * len(rows)).cut(np.array(limits))
    for row, limit, left in zip(rows, limits, rows_of(cut), strict=True):
        assert text(left) == text(row)[:limit]


def test_long_requests_are_cut_with_their_prompts() -> None:
    limited, num_cut = table().limited(160)
    assert num_cut == 2
    assert limited.prefill_tokens.tolist() == [140, 140, 70]
    assert limited.prompts is not None
    assert rows_of(limited.prompts)[0] == rows_of(limited.prompts)[1]


def test_requests_that_fit_are_left_alone() -> None:
    whole = table()
    assert whole.limited(10_000) == (whole, 0)


def test_a_trace_that_starts_again_has_new_texts() -> None:
    window = TraceStream(table(), repeat=True).window(0, 6)
    assert window.prompts is not None
    first, second = rows_of(window.prompts)[:3], rows_of(window.prompts)[3:]
    assert first == ROWS
    shift = second[0][0][0] - SYSTEM
    assert shift > 9
    assert second == [[(segment + shift, tokens) for segment, tokens in row] for row in ROWS]
    assert (window.prompts.answers[3:] - window.prompts.answers[:3]).tolist() == [shift] * 3


def test_the_digest_tells_texts_apart_and_is_the_old_one_without_them() -> None:
    plain = RequestTable(table().arrived_at, table().prefill_tokens, table().decode_tokens)
    other = Prompts.of([*ROWS[:2], [(SYSTEM, 60), (OTHER + 20, 10)]], [ANSWER, LAST, 9])
    assert len({plain.digest(), table().digest(), table(other).digest()}) == 3
    assert plain.digest().startswith("1e988209910fd4be")


@pytest.mark.parametrize(
    ("rows", "answers", "expected"),
    [
        ([[(0, 5)], []], [1, 2], "at least one segment for each of 2 prompts"),
        ([[(0, 5)], [(1, 0)]], [1, 2], "tokens of the prompts must be at least 1, not 0"),
        ([[(0, 5)], [(-1, 4)]], [1, 2], "segments of the prompts must be at least 0, not -1"),
        ([[(0, 5)], [(1, 4)]], [1, -2], "answers of the prompts must be at least 0, not -2"),
    ],
)
def test_impossible_prompts_are_named(
    rows: list[list[tuple[int, int]]], answers: list[int], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        Prompts.of(rows, answers)


def test_prompts_of_other_requests_are_refused() -> None:
    tokens = np.array([150, 200, 70])
    with pytest.raises(UserError, match="request 1 has 201 prefill_tokens, but its segments have"):
        RequestTable(np.arange(3.0), tokens + np.array([0, 1, 0]), tokens, PROMPTS)
    with pytest.raises(UserError, match="prompts describes 3 requests; the table has 2"):
        RequestTable(np.arange(2.0), tokens[:2], tokens[:2], PROMPTS)
