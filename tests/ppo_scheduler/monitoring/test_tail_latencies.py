"""Tail latencies are percentiles over real requests, and an alert is given once per crossing."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.monitoring.tail_latency import TailLatencyTracker

Requests = list[tuple[float, float]]


def drawn(count: int, seed: int) -> Requests:
    """Return ``count`` requests' end-to-end latency and time to first token."""
    seconds = np.random.default_rng(seed).exponential(3.0, (count, 2))
    return [(e2e_s, ttft_s) for e2e_s, ttft_s in seconds.tolist()]


REQUESTS = st.builds(drawn, st.integers(1, 60), st.integers(0, 2**32))


def filled(requests: Requests, window: int = 20, alert_s: float = 1e9) -> TailLatencyTracker:
    tracker = TailLatencyTracker(window, alert_s)
    for request in requests:
        tracker.add(np.array([request]))
    return tracker


def alerts(tracker: TailLatencyTracker, e2e_s: float, count: int) -> list[str]:
    given_alerts = [tracker.add(np.array([[e2e_s, 0.1]])) for _ in range(count)]
    return [text for text in given_alerts if text is not None]


@given(REQUESTS, st.integers(10, 40))
def test_percentiles_are_those_of_the_last_window_requests(requests, window):
    e2e, ttft = np.array(requests[-window:]).T
    scalars = filled(requests, window).scalars()
    for rank in (50, 90, 95, 99):
        assert scalars[f"tail_latency/latency_p{rank}"] == pytest.approx(np.percentile(e2e, rank))
    for rank in (50, 90, 99):
        assert scalars[f"tail_latency/ttft_p{rank}"] == pytest.approx(np.percentile(ttft, rank))
    assert filled(requests, window).mean_latency_s == pytest.approx(e2e.mean())


@given(REQUESTS, st.integers(10, 40), st.integers(1, 60))
def test_requests_may_come_one_by_one_or_together(requests, window, together):
    tracker = TailLatencyTracker(window, 1e9)
    for first in range(0, len(requests), together):
        tracker.add(np.array(requests[first : first + together]))
    assert tracker.scalars() == filled(requests, window).scalars()


def test_before_the_first_completion_nothing_is_known():
    tracker = TailLatencyTracker(10, 1.0)
    assert tracker.scalars() == {}
    assert math.isnan(tracker.mean_latency_s)


def test_an_alert_is_given_once_per_crossing():
    tracker = TailLatencyTracker(100, 5.0)
    assert alerts(tracker, 1.0, 300) == []
    (text,) = alerts(tracker, 9.0, 300)
    assert text == (
        "p99 latency of the last 100 requests is 9.0 s, above monitoring.tail_alert_s=5"
    )
    assert alerts(tracker, 1.0, 300) == []
    assert len(alerts(tracker, 9.0, 300)) == 1


def test_the_threshold_itself_is_no_alert():
    assert alerts(TailLatencyTracker(100, 5.0), 5.0, 300) == []


@given(REQUESTS, REQUESTS)
def test_a_restored_tracker_goes_on_as_the_saved_one(before, after):
    saved = filled(before)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    restored = filled(after)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.scalars() == saved.scalars()
    for request in after:
        assert restored.add(np.array([request])) == saved.add(np.array([request]))
        assert restored.scalars() == saved.scalars()


def test_a_saved_state_does_not_change_with_the_tracker():
    tracker = filled([(1.0, 1.0)] * 5)
    state = tracker.state_dict()
    tracker.add(np.array([[99.0, 99.0]]))
    restored = TailLatencyTracker(20, 1e9)
    restored.load_state_dict(state)
    assert restored.scalars()["tail_latency/latency_p99"] == 1.0


def test_an_alert_is_not_repeated_after_a_resume():
    tracker = TailLatencyTracker(100, 5.0)
    assert len(alerts(tracker, 9.0, 100)) == 1
    restored = TailLatencyTracker(100, 5.0)
    restored.load_state_dict(tracker.state_dict())
    assert alerts(restored, 9.0, 100) == []


@given(REQUESTS, st.integers(10, 40))
def test_another_window_keeps_the_newest_requests(requests, window):
    restored = TailLatencyTracker(window, 1e9)
    restored.load_state_dict(filled(requests, 20).state_dict())
    assert restored.scalars() == filled(requests[-20:], window).scalars()
    restored.add(np.array([[3.0, 2.0]]))
    assert restored.scalars() == filled([*requests[-20:], (3.0, 2.0)], window).scalars()
