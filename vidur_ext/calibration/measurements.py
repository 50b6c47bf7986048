"""What was measured: iterations of a server, or requests to one replica of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.workload.request_table import RequestTable

Times = dict[str, Floats]
"""Seconds by what they are: "step", or "TTFT", "TPOT" and "E2E"; NaN where a row has none."""

LEAST_ROWS = 25
"""Fewer rows leave fewer than five to judge by."""
_FIFTH = 5
_TOGETHER = 20
"""Requests that follow each other share iterations, so their errors are not independent."""


@dataclass(frozen=True, eq=False)
class Iterations:
    """N iterations; every fifth is held out.

    Attributes:
        path: the file they come from.
        decodes: float64[N], requests that decode one token.
        mean_kv: float64[N], their mean number of KV tokens, the new one included.
        prefill_tokens: float64[N], tokens of prompts.
        step_s: float64[N], how long the iteration took [s].

    Raises:
        UserError: there are too few.
    """

    path: Path
    decodes: Floats
    mean_kv: Floats
    prefill_tokens: Floats
    step_s: Floats

    def __post_init__(self) -> None:
        _check_rows(self.path, "iterations", len(self))

    def __len__(self) -> int:
        """Return N."""
        return len(self.step_s)

    @property
    def measured(self) -> Times:
        """What the model has to predict."""
        return {"step": self.step_s}

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which rows judge the fit [N]."""
        return np.arange(len(self)) % _FIFTH == _FIFTH - 1

    @property
    def groups(self) -> NDArray[np.int64]:
        """Rows of one group err together [N]."""
        return np.arange(len(self))

    def describe(self) -> str:
        """Return what they are, in a line."""
        return f"{len(self)} iterations"


@dataclass(frozen=True, eq=False)
class Requests:
    """N requests to one replica in the order of their arrival; the last fifth is held out.

    Attributes:
        path: the file they come from.
        table: the requests.
        ttft_s: float64[N], from arrival to the first token [s].
        e2e_s: float64[N], from arrival to the last token [s].
        skipped: what of the file is not among them, as texts.

    Raises:
        UserError: there are too few.
    """

    path: Path
    table: RequestTable
    ttft_s: Floats
    e2e_s: Floats
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_rows(self.path, "answered requests", len(self))

    def __len__(self) -> int:
        """Return N."""
        return len(self.table)

    @property
    def measured(self) -> Times:
        """What the model has to predict."""
        return request_times(self.table, self.ttft_s, self.e2e_s)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which rows judge the fit [N]: no later request is known to the fit."""
        return np.arange(len(self)) >= len(self) - len(self) // _FIFTH

    @property
    def groups(self) -> NDArray[np.int64]:
        """Rows of one group err together [N]."""
        return np.arange(len(self)) // _TOGETHER

    @property
    def longest(self) -> int:
        """Prompt and output tokens of the longest request."""
        return int((self.table.prefill_tokens + self.table.decode_tokens).max())

    def describe(self) -> str:
        """Return what they are, in a line."""
        ended = float((self.table.arrived_at + self.e2e_s).max())
        at_once = float(self.e2e_s.sum()) / ended
        return "; ".join(
            [f"{len(self)} requests in {ended:.1f} s, {at_once:.1f} at once", *self.skipped]
        )


Measured = Iterations | Requests


def request_times(table: RequestTable, ttft_s: Floats, e2e_s: Floats) -> Times:
    """Return the times of requests; those that came as one piece have no time per output token."""
    tpot = (e2e_s - ttft_s) / np.maximum(table.decode_tokens - 1, 1)
    several = (table.decode_tokens > 1) & (tpot > 0.0)
    return {"TTFT": ttft_s, "TPOT": np.where(several, tpot, np.nan), "E2E": e2e_s}


def _check_rows(path: Path, what: str, rows: int) -> None:
    if rows < LEAST_ROWS:
        raise UserError(
            f"{path}: {rows} {what} are too few to fit and to judge; measure at least {LEAST_ROWS}"
        )
