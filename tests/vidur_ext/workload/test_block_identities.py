"""Blocks have the same identity exactly where whole prefixes are the same text."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.prompts import Prompts


def runs_of(rows, block_size, answers=None):
    """Return the runs of rows ([(segment, tokens), ...], answer tokens)."""
    prompts = Prompts.of(
        [prompt for prompt, _ in rows],
        [1000 + row for row in range(len(rows))] if answers is None else answers,
    )
    return block_runs(prompts, np.array([tokens for _, tokens in rows], np.int64), block_size)


def test_prompts_part_where_their_segments_do():
    rows = [([(1, 8), (2, 8)], 0), ([(1, 8), (3, 8)], 0), ([(1, 6), (2, 8)], 0)]
    runs = runs_of(rows, block_size=4)
    first, second, third = (runs.of_request(i).tolist() for i in range(3))
    assert first[:2] == second[:2]
    assert not set(first[2:]) & set(second[2:])
    assert third[:1] == first[:1]
    assert not set(third[1:]) & {*first, *second}
    assert [len(first), len(second), len(third)] == [4, 4, 3]


def test_a_shorter_cut_shares_what_is_left_of_its_segment():
    runs = runs_of([([(1, 100)], 0), ([(1, 50)], 0)], block_size=4)
    assert runs.of_request(1).tolist() == runs.of_request(0).tolist()[:12]


def test_the_same_segment_behind_another_text_is_another_text():
    runs = runs_of([([(1, 4), (9, 4)], 0), ([(2, 4), (9, 4)], 0)], block_size=4)
    assert not set(runs.of_request(0)) & set(runs.of_request(1))


def test_a_segment_that_stands_twice_begins_anew():
    runs = runs_of([([(1, 8)], 0), ([(1, 4), (1, 4)], 0)], block_size=4)
    assert runs.of_request(0)[0] == runs.of_request(1)[0]
    assert runs.of_request(0)[1] != runs.of_request(1)[1]


def test_an_answer_is_found_in_a_later_prompt():
    rows = [([(1, 6)], 10), ([(1, 6), (1000, 10), (2, 4)], 3)]
    runs = runs_of(rows, block_size=4)
    assert runs.of_request(1).tolist()[:4] == runs.of_request(0).tolist()
    assert len(runs.of_request(1)) == 5


def test_all_blocks_are_those_of_one_request_after_the_other():
    rows = [([(1, 8), (2, 8)], 0), ([(3, 3)], 0), ([(1, 8), (4, 5)], 5)]
    runs = runs_of(rows, block_size=4)
    assert runs.counts.tolist() == [4, 0, 4]
    each = [runs.of_request(request).tolist() for request in range(3)]
    assert runs.of_all().tolist() == each[0] + each[1] + each[2]


def test_nothing_has_no_blocks():
    runs = runs_of([], block_size=4)
    assert (runs.first.tolist(), runs.identities) == ([0], 0)


def test_a_session_is_one_run():
    """Ten turns, each with the whole earlier one as its prompt."""
    prompt, rows = [(1, 50_000)], []
    for turn in range(10):
        prompt = [*prompt, (10 + turn, 500)]
        rows.append((prompt, 200))
        prompt = [*prompt, (1000 + turn, 200)]
    runs = runs_of(rows, block_size=16)
    assert runs.first.tolist() == list(range(11))
    assert runs.blocks[9] == (50_000 + 10 * 700) // 16
    assert (runs.identity == 0).all()
    assert runs.identities == (50_000 + 10 * 700) // 16, "all others are beginnings of the last"


def test_a_prompt_that_all_begin_with_is_a_run_of_its_own_for_all_but_one():
    runs = runs_of([([(1, 64), (10 + i, 64)], 64) for i in range(3)], block_size=16)
    assert np.diff(runs.first).tolist() == [1, 2, 2]
    assert runs.blocks.tolist() == [12, 4, 8, 4, 8]
    assert runs.identities == 4 + 3 * 8


@pytest.mark.parametrize("seed", range(60))
def test_identities_are_equal_exactly_where_whole_prefixes_are(seed):
    """Against the texts themselves, token by token."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(int(rng.integers(1, 25))):
        if rows and rng.random() < 0.6:
            parent = int(rng.integers(len(rows)))
            prompt, output = rows[parent]
            cut = int(rng.integers(0, output + 1))
            prompt = [*prompt, *([(1000 + parent, cut)] if cut else [])]
        else:
            prompt = []
        more = [(int(rng.integers(1, 5)), int(rng.integers(1, 12))) for _ in range(3)]
        rows.append(([*prompt, *more], int(rng.integers(0, 12))))
    block_size = int(rng.choice([1, 2, 5]))
    runs = runs_of(rows, block_size)
    prefix_of: dict[int, tuple] = {}
    identity_of: dict[tuple, int] = {}
    for number, (prompt, output) in enumerate(rows):
        text = [(name, i) for name, n in [*prompt, (1000 + number, output)] for i in range(n)]
        identities = runs.of_request(number).tolist()
        assert len(identities) == len(text) // block_size
        for place, identity in enumerate(identities):
            prefix = tuple(text[: (place + 1) * block_size])
            assert prefix_of.setdefault(identity, prefix) == prefix
            assert identity_of.setdefault(prefix, identity) == identity
    assert sorted(prefix_of) == list(range(runs.identities)), "the numbers are used without gaps"
    assert (runs.blocks > 0).all()
    meets = runs.identity[1:] == runs.identity[:-1] + runs.blocks[:-1]
    assert set(1 + np.flatnonzero(meets)) <= set(runs.first), "runs are as long as they can be"
    begins = np.unique(runs.identity)
    inside = np.searchsorted(begins, runs.identity + runs.blocks) - np.searchsorted(
        begins, runs.identity
    )
    assert (inside == 1).all(), "no run begins within another one"
