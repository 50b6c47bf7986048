"""Running statistics of features, and the normalization by them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled_entry, vectorized
from ppo_scheduler.observation import Floats
from ppo_scheduler.state import StateDict

_CONSTANT = 1e-9
"""A standard deviation below this share of the mean's size is rounding noise, not spread."""


@vectorized
def _normalize_row(
    row: Floats, mean: Floats, std: Floats, clip: float, normalized: NDArray[np.float32]
) -> None:
    for column in range(len(row)):
        value = (row[column] - mean[column]) / std[column]
        value = -clip if value < -clip else value
        normalized[column] = clip if value > clip else value


@compiled_entry
def _normalize(
    rows: Floats, mean: Floats, std: Floats, clip: float, normalized: NDArray[np.float32]
) -> None:
    """Write (rows - mean) / std of rows [N, F], clipped; NumPy would go through them four times."""
    for number in range(len(rows)):
        _normalize_row(rows[number], mean, std, clip, normalized[number])


class RunningMeanStd:
    """Mean and population variance of all rows ever seen, in O(shape) memory.

    Batches are merged by the parallel formula of Chan, Golub and LeVeque ("Updating Formulae and
    a Pairwise Algorithm for Computing Sample Variances", 1979, equations 2.1), which does not
    cancel digits as a running sum of squares would.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(shape)
        self._squares: Floats = np.zeros(shape)
        self._std: Floats = np.ones(shape)

    @property
    def variance(self) -> Floats:
        """Population variance [*shape]; 0 before the first update."""
        return np.asarray(self._squares / max(self.count, 1))

    @property
    def std(self) -> Floats:
        """Divisor of ``normalize`` [*shape]: the standard deviation, 1 where nothing varied."""
        return self._std.copy()

    def update(self, batch: NDArray[np.floating]) -> None:
        """Take in the rows of a batch [N, *shape], N >= 1, finite."""
        rows = np.asarray(batch, dtype=np.float64)
        assert rows.shape[1:] == self.mean.shape, f"rows {rows.shape}, not [N, *{self.mean.shape}]"
        assert len(rows) >= 1, "a batch without rows has no statistics"
        assert np.isfinite(rows).all(), "a value that is not finite would spoil the statistics"
        mean = rows.mean(axis=0)
        squares = np.square(rows - mean).sum(axis=0)
        total = self.count + len(rows)
        share = len(rows) / total
        delta = mean - self.mean
        self.mean = np.asarray(self.mean + delta * share)
        self._squares = np.asarray(self._squares + squares + np.square(delta) * self.count * share)
        self.count = total
        self._refresh()

    def normalize(self, values: NDArray[np.floating], clip: float) -> NDArray[np.float32]:
        """Return (values - mean) / std of values [..., *shape], clipped to [-clip, clip].

        The statistics stay as they are. What never varied is only shifted, not blown up.
        """
        assert self.count > 0, "normalize before the first update: there are no statistics"
        rows = np.ascontiguousarray(values, dtype=np.float64).reshape(-1, self.mean.size)
        normalized = np.empty(values.shape, dtype=np.float32)
        _normalize(rows, self.mean.ravel(), self._std.ravel(), clip, normalized.reshape(rows.shape))
        return normalized

    def _refresh(self) -> None:
        std = np.sqrt(self.variance)
        self._std = np.where(std > _CONSTANT * np.abs(self.mean), std, 1.0)

    def state_dict(self) -> StateDict:
        return {
            "count": self.count,
            "mean": torch.from_numpy(self.mean.copy()),
            "squares": torch.from_numpy(self._squares.copy()),
        }

    def load_state_dict(self, state: StateDict) -> None:
        mean = state["mean"].numpy().copy()
        assert mean.shape == self.mean.shape, f"statistics of {mean.shape}, not {self.mean.shape}"
        self.count = state["count"]
        self.mean = mean
        self._squares = state["squares"].numpy().copy()
        self._refresh()
