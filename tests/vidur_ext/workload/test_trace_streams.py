"""Recorded streams: training and judging share no request, and a training may start again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.trace_stream import TraceStream


def trace(count: int, gap: float = 1.0) -> TraceStream:
    tokens = np.arange(1, count + 1)
    return TraceStream(RequestTable(np.arange(count) * gap, tokens, tokens))


@given(st.integers(4, 400), st.floats(0.01, 0.99))
def test_the_parts_share_no_request_and_lose_none(count: int, fraction: float) -> None:
    held_out = round(count * fraction)
    if min(held_out, count - held_out) < 2:
        with pytest.raises(UserError, match="cannot be split"):
            trace(count).split(fraction)
        return
    training, judging = trace(count).split(fraction)
    assert judging.num_requests == held_out
    assert training.window(0, count - held_out).prefill_tokens.tolist() == list(
        range(1, count - held_out + 1)
    )
    assert judging.window(0, held_out).prefill_tokens.tolist() == list(
        range(count - held_out + 1, count + 1)
    )


def test_a_training_starts_the_trace_again_and_never_sees_what_is_held_out() -> None:
    training, judging = trace(10).split(0.3)
    seen = training.window(0, 50).prefill_tokens
    assert set(seen.tolist()) == set(range(1, 8))
    assert seen[:14].tolist() == [*range(1, 8), *range(1, 8)]
    assert set(judging.window(0, 3).prefill_tokens.tolist()) == {8, 9, 10}


def test_a_repeated_trace_keeps_its_rate() -> None:
    stream = TraceStream(RequestTable.from_rows([(0.0, 1, 1), (1.0, 2, 2), (4.0, 3, 3)]), True)
    assert stream.num_requests is None
    assert stream.window(0, 5).arrived_at.tolist() == [0.0, 1.0, 4.0, 6.0, 7.0]
    assert stream.window(3, 2).arrived_at.tolist() == [2.0, 3.0]


def test_the_held_out_part_does_not_repeat() -> None:
    with pytest.raises(UserError, match="the stream holds 3"):
        trace(10).split(0.3)[1].window(0, 4)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="expected a share above 0 and below 1"):
        trace(10).split(fraction)


def test_streams_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="table is empty"):
        TraceStream(RequestTable.from_rows([]))
    with pytest.raises(UserError, match="cannot be repeated"):
        TraceStream(RequestTable.from_rows([(1.0, 1, 1), (1.0, 1, 1)]), repeat=True)
