"""How much a cluster had to do while it was measured: idle, loaded or overloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidur_ext.evaluation.run_result import RunResult

MOST_GROWTH = 1.5
"""Where requests wait too long, the second half may wait this many times as long as the first."""


@dataclass(frozen=True)
class Load:
    """Means over the time from the first counted arrival to the last completion.

    A request is in service from its first batch to its last output token.

    Attributes:
        busy: share of the time in which a replica has a request in service, over all replicas.
        in_service: requests in service per replica.
        waiting: requests that wait for their first batch, in the whole cluster.
        ttft_halves_s: mean TTFT of the first and of the second half of the counted requests; None
            where there is only one.
    """

    busy: float
    in_service: float
    waiting: float
    ttft_halves_s: tuple[float, float] | None

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        halves = self.ttft_halves_s
        return {**vars(self), "ttft_halves_s": None if halves is None else list(halves)}

    def overloaded(self, ttft_s: float) -> bool:
        """Return whether waiting grew through the run, and beyond the objective ``ttft_s``."""
        if self.ttft_halves_s is None:
            return False
        first, second = self.ttft_halves_s
        return second > ttft_s and second > MOST_GROWTH * first


def load_of(run: RunResult, first: int) -> Load:
    """Return the load of a run from the arrival of request ``first`` on."""
    begin, end = float(run.arrived_at[first:].min()), float(run.completed_at[first:].max())
    arrived, started, done = (
        np.clip(times, begin, end) for times in (run.arrived_at, run.scheduled_at, run.completed_at)
    )
    time = end - begin
    covered = sum(
        _covered(started[mine], done[mine])
        for mine in (run.replica == replica for replica in range(run.num_replicas))
    )
    ttft = (run.prefill_completed_at - run.arrived_at)[first:]
    halves = [float(half.mean()) for half in np.array_split(ttft, 2) if len(half)]
    return Load(
        busy=covered / time / run.num_replicas,
        in_service=float((done - started).sum()) / time / run.num_replicas,
        waiting=float((started - arrived).sum()) / time,
        ttft_halves_s=(halves[0], halves[1]) if len(halves) == 2 else None,
    )


def mean_load(loads: Sequence[Load], times: Sequence[float]) -> Load:
    """Return the load of several runs that took ``times`` [s]; halves are averaged over runs."""
    halves = [one.ttft_halves_s for one in loads if one.ttft_halves_s is not None]
    first, second = np.mean(halves or [(np.nan, np.nan)], axis=0).tolist()
    return Load(
        busy=float(np.average([one.busy for one in loads], weights=times)),
        in_service=float(np.average([one.in_service for one in loads], weights=times)),
        waiting=float(np.average([one.waiting for one in loads], weights=times)),
        ttft_halves_s=(first, second) if halves else None,
    )


def _covered(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """Return how much time the spans cover together; where they overlap it counts once."""
    if len(starts) == 0:
        return 0.0
    order = np.argsort(starts)
    starts, latest = starts[order], np.maximum.accumulate(ends[order])
    gaps = np.maximum(starts[1:] - latest[:-1], 0.0)
    return float(latest[-1] - starts[0] - gaps.sum())
