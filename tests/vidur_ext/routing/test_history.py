"""Moving statistics."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vidur_ext.routing.view import Past, follow, new_history


def after(values: list[float], alpha: float = 0.1) -> dict[str, float]:
    history = new_history(1)
    for value in values:
        follow(history, 0, value, alpha)
    return {row.label: float(history[row, 0]) for row in Past}


@settings(deadline=None)
@given(level=st.floats(-100, 100), steps=st.integers(1, 50))
def test_a_constant_has_no_history(level, steps):
    seen = after([level] * steps)
    assert seen["delta"] == seen["trend"] == seen["variance"] == 0.0
    assert seen["ema"] == seen["peak"] == seen["low"] == level


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 100), min_size=2, max_size=50))
def test_extremes_enclose_the_average(values):
    seen = after(values)
    assert seen["low"] - 1e-9 <= seen["ema"] <= seen["peak"] + 1e-9
    assert seen["delta"] == values[-1] - values[-2]
    assert seen["variance"] >= 0.0


def test_a_rise_is_a_positive_trend():
    assert after([float(i) for i in range(20)])["trend"] > 0.0
    assert after([float(-i) for i in range(20)])["trend"] < 0.0


def test_a_larger_alpha_follows_faster():
    step = [0.0] * 5 + [1.0] * 5
    assert after(step, alpha=0.5)["ema"] > after(step, alpha=0.1)["ema"]


def test_elements_do_not_touch_each_other():
    history = new_history(2)
    follow(history, 0, 5.0, 0.1)
    follow(history, 1, 1.0, 0.1)
    follow(history, 0, 9.0, 0.1)
    np.testing.assert_array_equal(history[: Past.LAST, 1], [0.0, 1.0, 0.0, 0.0, 1.0, 1.0])
