"""Moving statistics of a vector, updated once per decision in constant time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

HISTORY = ("delta", "ema", "trend", "variance", "peak", "low")
"""Rows of ``MovingStatistics.update``.

delta: change since the last decision; ema: exponential moving average; trend: fast minus slow
average; variance: exponentially weighted; peak, low: extremes that decay towards the average.
"""


class MovingStatistics:
    """Exponentially weighted history of one quantity per replica (or of one number)."""

    def __init__(self, size: int, alpha: float) -> None:
        self._size = size
        self._alpha = alpha
        self.reset()

    def reset(self) -> None:
        """Forget the past: a new episode begins."""
        self._last: Vector | None = None
        self._table = np.zeros((len(HISTORY), self._size))
        self._slow = np.zeros(self._size)

    def update(self, value: Vector) -> Vector:
        """Take a new value [size]; return [len(HISTORY), size], reused next time."""
        table, alpha = self._table, self._alpha
        if self._last is None:
            self._last = value.copy()
            self._slow[:] = value
            table[1] = table[4] = table[5] = value
            return table
        np.subtract(value, self._last, out=table[0])
        self._last[:] = value
        error = value - table[1]
        table[1] += alpha * error
        self._slow += 0.25 * alpha * (value - self._slow)
        np.subtract(table[1], self._slow, out=table[2])
        table[3] = (1.0 - alpha) * (table[3] + alpha * error * error)
        np.maximum(value, table[4] + alpha * (table[1] - table[4]), out=table[4])
        np.minimum(value, table[5] + alpha * (table[1] - table[5]), out=table[5])
        return table
