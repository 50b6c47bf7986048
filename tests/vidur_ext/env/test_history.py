"""Moving statistics."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidur_ext.env.history import HISTORY, MovingStatistics


def follow(values: list[float], alpha: float = 0.1) -> dict[str, float]:
    statistics = MovingStatistics(1, alpha)
    for value in values:
        table = statistics.update(np.array([value]))
    return {name: float(table[row, 0]) for row, name in enumerate(HISTORY)}


@given(level=st.floats(-100, 100), steps=st.integers(1, 50))
def test_a_constant_has_no_history(level, steps):
    seen = follow([level] * steps)
    assert seen["delta"] == seen["trend"] == seen["variance"] == 0.0
    assert seen["ema"] == seen["peak"] == seen["low"] == level


@given(values=st.lists(st.floats(0, 100), min_size=2, max_size=50))
def test_extremes_enclose_the_average(values):
    seen = follow(values)
    assert seen["low"] - 1e-9 <= seen["ema"] <= seen["peak"] + 1e-9
    assert seen["delta"] == values[-1] - values[-2]
    assert seen["variance"] >= 0.0


def test_a_rise_is_a_positive_trend():
    assert follow([float(i) for i in range(20)])["trend"] > 0.0
    assert follow([float(-i) for i in range(20)])["trend"] < 0.0


def test_a_larger_alpha_follows_faster():
    step = [0.0] * 5 + [1.0] * 5
    assert follow(step, alpha=0.5)["ema"] > follow(step, alpha=0.1)["ema"]


def test_reset_forgets():
    statistics = MovingStatistics(2, 0.1)
    statistics.update(np.array([5.0, 5.0]))
    statistics.reset()
    table = statistics.update(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(table[0], 0.0)
