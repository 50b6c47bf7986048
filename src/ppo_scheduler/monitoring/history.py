"""All scalars recorded so far: a checkpoint carries them, so that a new folder can show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.monitoring.sink import Row
from ppo_scheduler.state import StateDict


class MetricsHistory:
    """Rows of (``global_step``, scalars) in a table that grows; NaN is a scalar that is missing."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._begin(columns)

    def _begin(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._index = {name: i for i, name in enumerate(self._columns)}
        self._steps: NDArray[np.int64] = np.zeros(64, np.int64)
        self._values: NDArray[np.float64] = np.full((64, len(self._columns)), np.nan)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, global_step: int, scalars: Mapping[str, float]) -> None:
        if self._count == len(self._steps):
            self._steps = np.concatenate([self._steps, np.zeros_like(self._steps)])
            empty = np.full_like(self._values, np.nan)
            self._values = np.concatenate([self._values, empty])
        self._steps[self._count] = global_step
        for name, value in scalars.items():
            self._values[self._count, self._index[name]] = value
        self._count += 1

    def rows(self) -> Iterator[Row]:
        """Yield what was recorded, in order."""
        for step, values in zip(self._steps[: self._count], self._values, strict=False):
            present = np.flatnonzero(~np.isnan(values))
            yield int(step), {self._columns[i]: float(values[i]) for i in present}

    def state_dict(self) -> StateDict:
        return {
            "columns": list(self._columns),
            "steps": torch.from_numpy(self._steps[: self._count]),
            "values": torch.from_numpy(self._values[: self._count]),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore. Columns that only the saved training had are kept behind the present ones."""
        names: list[str] = state["columns"]
        self._begin([*self._columns, *(name for name in names if name not in self._index)])
        for step, values in zip(state["steps"].tolist(), state["values"].tolist(), strict=True):
            self.append(step, dict(zip(names, values, strict=True)))
