"""Tail latencies of real requests, over a window of the last completions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.monitoring.scalars import TAIL_PERCENTILES
from ppo_scheduler.state import StateDict

_CHECK_EVERY = 100


class TailLatencyTracker:
    """Keeps the last ``window`` completed requests in a ring; percentiles are over requests."""

    def __init__(self, window: int, alert_s: float) -> None:
        self._ring = np.zeros((window, 2))
        self._alert_s = alert_s
        self._count = 0
        self._alarmed = False

    def add(self, latencies: NDArray[np.float64]) -> str | None:
        """Take completed requests; return an alert when p99 has risen above the threshold.

        Args:
            latencies: [n, 2], times end to end and to first token [s], oldest first.
        """
        newest = latencies[-len(self._ring) :]
        count = self._count + len(latencies)
        self._ring[np.arange(count - len(newest), count) % len(self._ring)] = newest
        due = count // _CHECK_EVERY > self._count // _CHECK_EVERY
        self._count = count
        return self._check() if due else None

    def _check(self) -> str | None:
        seen = self._seen()[:, 0]
        late = bool((seen > self._alert_s).any())
        p99 = float(np.percentile(seen, 99)) if late else 0.0
        rose = p99 > self._alert_s and not self._alarmed
        self._alarmed = p99 > self._alert_s
        if not rose:
            return None
        return (
            f"p99 latency of the last {len(seen)} requests is {p99:.1f} s, above "
            f"monitoring.tail_alert_s={self._alert_s:g}"
        )

    def scalars(self) -> dict[str, float]:
        """Return tail_latency/*; nothing before the first completion."""
        seen = self._seen()
        if not len(seen):
            return {}
        return {
            f"tail_latency/{what}_p{rank}": float(np.percentile(seen[:, column], rank))
            for column, (what, ranks) in enumerate(TAIL_PERCENTILES.items())
            for rank in ranks
        }

    @property
    def mean_latency_s(self) -> float:
        """Mean end-to-end latency in the window; NaN before the first completion."""
        seen = self._seen()
        return float(seen[:, 0].mean()) if len(seen) else float("nan")

    def _seen(self) -> NDArray[np.float64]:
        return self._ring[: self._count]

    def state_dict(self) -> StateDict:
        return {
            "ring": torch.from_numpy(self._ring.copy()),
            "count": self._count,
            "alarmed": self._alarmed,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore; with another window, the newest requests that fit are kept."""
        ring = state["ring"].numpy()
        count: int = state["count"]
        self._alarmed = state["alarmed"]
        if len(ring) == len(self._ring):
            self._ring[:] = ring
            self._count = count
            return
        oldest_first = np.roll(ring, -(count % len(ring)), axis=0)
        ordered = oldest_first if count > len(ring) else ring[:count]
        newest = ordered[-len(self._ring) :]
        self._ring[: len(newest)] = newest
        self._count = len(newest)
