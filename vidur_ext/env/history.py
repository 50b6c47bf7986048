"""Compiled: moving statistics of a vector, updated once per decision in constant time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidur_ext.compiled import compiled

DELTA, EMA, TREND, VARIANCE, PEAK, LOW, _LAST, _SLOW = range(8)
"""Rows of a history: those of ``schema.HISTORY``, then the last value and the slow average."""


def new_history(size: int) -> NDArray[np.float64]:
    """Return the history [8, size] of a quantity that has not been seen yet."""
    history = np.zeros((8, size))
    history[_LAST] = np.nan
    return history


@compiled
def follow(history: NDArray[np.float64], index: int, value: float, alpha: float) -> None:
    """Take the next value of one element."""
    if np.isnan(history[_LAST, index]):
        history[_SLOW, index] = value
        history[EMA, index] = history[PEAK, index] = history[LOW, index] = value
        history[_LAST, index] = value
        return
    history[DELTA, index] = value - history[_LAST, index]
    history[_LAST, index] = value
    error = value - history[EMA, index]
    history[EMA, index] += alpha * error
    average = history[EMA, index]
    history[_SLOW, index] += 0.25 * alpha * (value - history[_SLOW, index])
    history[TREND, index] = average - history[_SLOW, index]
    history[VARIANCE, index] = (1.0 - alpha) * (history[VARIANCE, index] + alpha * error * error)
    peak, low = history[PEAK, index], history[LOW, index]
    history[PEAK, index] = max(value, peak + alpha * (average - peak))
    history[LOW, index] = min(value, low + alpha * (average - low))
