"""What a cache of all requests would find, against a cache of plain tokens."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidur_ext.workload.prefix_hits import hit_tokens
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

Rows = list[tuple[list[tuple[int, int]], int]]
"""Prompts as (segment, tokens) pairs, and tokens of the answers."""


def table_of(rows: Rows) -> RequestTable:
    prompts = Prompts.of([prompt for prompt, _ in rows], [100 + i for i in range(len(rows))])
    answers = np.array([answer for _, answer in rows])
    return RequestTable(np.arange(len(rows)) * 1.0, prompts.lengths, answers, prompts)


def words(segments: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((segment, place) for segment, tokens in segments for place in range(tokens))


def found_by_tokens(rows: Rows, block: int, capacity: int | None, answers: bool) -> list[int]:
    """Do the same with prefixes written out, in an ordered dictionary."""
    cache: OrderedDict[tuple[tuple[int, int], ...], None] = OrderedDict()
    found = []
    for number, (prompt, answer) in enumerate(rows):
        kept = [(100 + number, answer - 1)] if answers else []
        text = words(prompt + kept)
        blocks = [text[:end] for end in range(block, len(text) + 1, block)]
        most = (len(words(prompt)) - 1) // block
        hits = 0
        while hits < most and blocks[hits] in cache:
            hits += 1
        found.append(hits * block)
        for one in reversed(blocks):
            cache.pop(one, None)
            cache[one] = None
            while capacity is not None and len(cache) > capacity // block:
                cache.popitem(last=False)
    return found


pieces = st.tuples(st.sampled_from([0, 1, 2, 100, 101, 102]), st.integers(1, 12))
row_lists = st.lists(
    st.tuples(st.lists(pieces, min_size=1, max_size=5), st.integers(1, 9)), min_size=1, max_size=9
)


@settings(deadline=None)  # the first example is compiled
@given(row_lists, st.integers(1, 6), st.none() | st.integers(0, 40), st.booleans())
def test_hits_are_those_of_a_cache_of_plain_tokens(
    rows: Rows, block: int, capacity: int | None, answers: bool
) -> None:
    found = hit_tokens(table_of(rows), block, capacity, answers=answers)
    assert found.tolist() == found_by_tokens(rows, block, capacity, answers)


ROWS: Rows = [
    ([(0, 32), (1, 20)], 13),
    ([(0, 32), (2, 20)], 5),
    ([(0, 32), (1, 20), (100, 13), (3, 7)], 5),
]


@pytest.mark.parametrize(("answers", "found"), [(True, [0, 32, 64]), (False, [0, 32, 48])])
def test_a_turn_finds_the_answer_before_if_answers_stay(answers: bool, found: list[int]) -> None:
    assert hit_tokens(table_of(ROWS), 16, answers=answers).tolist() == found


def test_a_small_cache_forgets_the_ends_of_prompts_first() -> None:
    # Three blocks each: of the second request's, one has pushed out the end of the first's.
    assert hit_tokens(table_of(ROWS), 16, 48, answers=False).tolist() == [0, 32, 32]
    assert hit_tokens(table_of(ROWS), 16, 64, answers=False).tolist() == [0, 32, 48]
    assert hit_tokens(table_of(ROWS), 16, 15, answers=False).tolist() == [0, 0, 0]


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    same: Rows = [([(0, 32)], 3), ([(0, 32)], 3)]
    assert hit_tokens(table_of(same), 16).tolist() == [0, 16]
