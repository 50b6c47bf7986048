"""The law of streams: windows are slices of one stream, to the last bit, however it is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.sections import PRESETS
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.session_stream import SessionStream
from vidur_ext.workload.stream import RequestStream, to_ticks
from vidur_ext.workload.synthetic import SyntheticStream
from vidur_ext.workload.trace_stream import TraceStream


def recorded(gaps: list[float], repeat: bool) -> TraceStream:
    times = np.cumsum([5.0, *gaps])
    tokens = np.arange(1, len(times) + 1)
    return TraceStream(RequestTable(times, tokens, tokens * 2), repeat)


synthetic_streams = st.builds(
    SyntheticStream,
    seed=st.integers(0, 2**40),
    purpose=st.just(Purpose.WORKLOAD),
    qps=st.floats(0.01, 5000.0),
    arrival=st.sampled_from(["poisson", "gamma"]),
    burstiness_cv=st.floats(0.1, 20.0),
    code_fraction=st.floats(0.0, 1.0),
    max_tokens=st.integers(2, 10_000),
    output_tail_index=st.none() | st.floats(1.01, 5.0),
    rate_profile=st.lists(st.floats(0.1, 5.0), min_size=1, max_size=4).map(tuple),
    rate_period=st.integers(4, 3000),
    variant=st.integers(0, 5),
)
repeating_traces = st.builds(
    recorded,
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=20).map(lambda gaps: [*gaps, 0.3]),
    st.just(True),
)
session_streams = st.builds(
    SessionStream,
    preset=st.sampled_from(PRESETS),
    seed=st.integers(0, 3),
    purpose=st.just(Purpose.WORKLOAD),
    qps=st.floats(0.01, 20.0),
    arrival=st.sampled_from(["poisson", "gamma"]),
    burstiness_cv=st.floats(0.1, 20.0),
    max_tokens=st.integers(2, 300_000),
    length_scale=st.floats(0.01, 1.0),
    variant=st.integers(0, 2),
)
streams = st.one_of(synthetic_streams, repeating_traces, session_streams)
starts = st.one_of(st.integers(0, 60), st.integers(1000, 3100))


@settings(deadline=None)  # where sessions meet, blocks have to be drawn first
@given(streams, starts, st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_consecutive_windows_join_without_a_seam(
    stream: RequestStream, start: int, counts: list[int]
) -> None:
    whole = stream.window(start, sum(counts))
    origin, position = 0.0, start
    times, prompts, outputs, segments = [], [], [], []
    for count in counts:
        part = stream.window(position, count)
        times.extend((part.arrived_at + origin).tolist())
        prompts.extend(part.prefill_tokens.tolist())
        outputs.extend(part.decode_tokens.tolist())
        segments.extend(part.prompts.segments.tolist() if part.prompts else [])
        origin, position = times[-1], position + count
    assert times == whole.arrived_at.tolist()
    assert prompts == whole.prefill_tokens.tolist()
    assert outputs == whole.decode_tokens.tolist()
    assert segments == (whole.prompts.segments.tolist() if whole.prompts else [])


@settings(deadline=None)  # where sessions meet, blocks have to be drawn first
@given(streams, starts, st.integers(1, 60), st.data())
def test_a_window_begins_with_every_shorter_window(
    stream: RequestStream, start: int, count: int, data: st.DataObject
) -> None:
    shorter = data.draw(st.integers(1, count))
    expected = stream.window(start, count).slice(0, shorter)
    assert stream.window(start, shorter).digest() == expected.digest()


@pytest.mark.parametrize("preset", PRESETS)
def test_windows_cross_the_blocks_of_a_stream_of_sessions(preset: str) -> None:
    stream = SessionStream(preset, 3, Purpose.WORKLOAD, 10.0, "gamma", 2.0, 8192)
    whole = stream.window(1000, 12_000)
    for start in (4095, 8000, 8192, 9321):
        part = stream.window(start, 700)
        expected = whole.slice(start - 1000, start - 300)
        origin = whole.arrived_at[start - 1001]
        assert part.arrived_at.tolist() == (expected.arrived_at - origin).tolist()
        assert replace(part, arrived_at=expected.arrived_at).digest() == expected.digest()


def test_windows_cross_the_blocks_of_a_synthetic_stream() -> None:
    stream = SyntheticStream(3, Purpose.WORKLOAD, 10.0, "gamma", 2.0, 0.5, 8192)
    whole = stream.window(0, 5000)
    part = stream.window(1000, 3000)
    assert part.prefill_tokens.tolist() == whole.prefill_tokens[1000:4000].tolist()
    assert (
        part.arrived_at.tolist() == (whole.arrived_at - whole.arrived_at[999])[1000:4000].tolist()
    )


def test_a_trace_begins_with_its_first_request() -> None:
    assert recorded([1.5, 2.0], repeat=False).window(0, 3).arrived_at.tolist() == [0.0, 1.5, 3.5]


def test_a_later_window_of_a_trace_counts_from_the_request_before() -> None:
    assert recorded([1.5, 2.0], repeat=False).window(1, 2).arrived_at.tolist() == [1.5, 3.5]


@pytest.mark.parametrize(("start", "count"), [(0, 4), (3, 1), (2, 2)])
def test_a_window_past_the_end_says_how_many_requests_there_are(start: int, count: int) -> None:
    with pytest.raises(UserError, match="the stream holds 3"):
        recorded([1.5, 2.0], repeat=False).window(start, count)


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (0, 0)])
def test_an_impossible_window_is_refused(start: int, count: int) -> None:
    with pytest.raises(UserError, match="at least one request"):
        SyntheticStream(0, Purpose.WORKLOAD, 1.0, "poisson", 1.0, 0.0, 100).window(start, count)


def test_times_beyond_the_clock_are_refused() -> None:
    with pytest.raises(UserError, match="136 years"):
        to_ticks(np.array([1e10]))
