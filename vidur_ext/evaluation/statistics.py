"""Confidence intervals of figures and of paired differences between schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidur_ext.evaluation.metrics import (
    COMPARED_METRICS,
    LATENCIES,
    QUANTILES,
    RequestLatencies,
    more_is_better,
    point_estimates,
)
from vidur_ext.evaluation.resampling import resample_counts, weighted_means, weighted_quantiles

CONFIDENCE = 0.95

_ENTRIES_AT_ONCE = 4_000_000
"""Counts held in memory at a time: 16 MB; more requests mean fewer resamples per pass."""


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap percentile interval."""

    low: float
    high: float

    @classmethod
    def of(cls, draws: NDArray[np.float64]) -> Interval | None:
        """Return the interval of float64[B] resampled figures; None if any is undefined."""
        if not np.isfinite(draws).all():
            return None
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(draws, (tail, 1 - tail)).tolist()
        return cls(low, high)

    def to_list(self) -> list[float]:
        """Return [low, high]."""
        return [self.low, self.high]


@dataclass(frozen=True)
class PairedDifference:
    """One metric of one scheduler against a reference on the same requests.

    Attributes:
        difference: scheduler - reference, in the metric's unit.
        interval: of the difference.
        ratio: scheduler / reference; None if the reference is 0.
        ratio_interval: of the ratio; None if the reference is 0 in a resample.
        win: the whole interval is on the better side of 0.
        loss: the whole interval is on the worse side of 0.
    """

    difference: float
    interval: Interval
    ratio: float | None
    ratio_interval: Interval | None
    win: bool
    loss: bool

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        ratio = self.ratio_interval
        return {
            "difference": self.difference,
            "interval": self.interval.to_list(),
            "ratio": self.ratio,
            "ratio_interval": None if ratio is None else ratio.to_list(),
            "win": self.win,
            "loss": self.loss,
        }


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Every compared metric of S schedulers on B common resamples.

    Attributes:
        points: float64[S, M], from the requests themselves; M is ``len(COMPARED_METRICS)``.
        draws: float64[S, M, B], from the resamples.
    """

    points: NDArray[np.float64]
    draws: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        pooled: Sequence[RequestLatencies],
        run_sizes: Sequence[int],
        samples: int,
        rng: np.random.Generator,
    ) -> Bootstrap:
        """Resample runs, and blocks of requests within them, for all schedulers alike.

        Args:
            pooled: per scheduler, the requests of its runs one run after the other.
            run_sizes: requests in each run, the same for every scheduler.
            samples: resamples B.
        """
        at_once = max(1, _ENTRIES_AT_ONCE // sum(run_sizes))
        parts = []
        for done in range(0, samples, at_once):
            counts = resample_counts(run_sizes, min(at_once, samples - done), rng)
            parts.append(np.stack([_resampled_figures(one, counts) for one in pooled]))
        points = np.stack([point_estimates(one) for one in pooled])
        return cls(points, np.concatenate(parts, axis=2))

    def intervals(self, scheduler: int) -> dict[str, Interval | None]:
        """Return the interval of each metric of one scheduler."""
        return {
            metric: Interval.of(self.draws[scheduler, m])
            for m, metric in enumerate(COMPARED_METRICS)
        }

    def versus(self, scheduler: int, reference: int) -> dict[str, PairedDifference | None]:
        """Return each metric's paired difference; None where the metric is undefined."""
        return {
            metric: self._paired(scheduler, reference, m, metric)
            for m, metric in enumerate(COMPARED_METRICS)
        }

    def _paired(
        self, scheduler: int, reference: int, m: int, metric: str
    ) -> PairedDifference | None:
        ours, theirs = self.draws[scheduler, m], self.draws[reference, m]
        interval = Interval.of(ours - theirs)
        if interval is None:
            return None
        point, base = float(self.points[scheduler, m]), float(self.points[reference, m])
        above, below = interval.low > 0, interval.high < 0
        better, worse = (above, below) if more_is_better(metric) else (below, above)
        return PairedDifference(
            difference=point - base,
            interval=interval,
            ratio=point / base if base > 0 else None,
            ratio_interval=Interval.of(ours / theirs) if (theirs > 0).all() else None,
            win=better,
            loss=worse,
        )


def _resampled_figures(
    latencies: RequestLatencies, counts: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return float64[M, samples]: ``COMPARED_METRICS`` of every resample."""
    rows: list[NDArray[np.float64]] = []
    for latency in LATENCIES:
        values = getattr(latencies, latency)
        measured = ~np.isnan(values)
        of_measured = counts if measured.all() else counts[measured]
        rows.append(weighted_means(values[measured], of_measured))
        rows.extend(weighted_quantiles(values[measured], of_measured, QUANTILES))
    rows.append(weighted_means(latencies.within_slo, counts))
    return np.stack(rows)
