"""Confidence intervals of figures and of paired differences between schedulers.

By hierarchical block resampling, without building the resamples: a resample is a row of counts, how
often each request is in it. All schedulers are judged on the same rows, which pairs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidur_ext.evaluation.metrics import (
    COMPARED_METRICS,
    LATENCIES,
    QUANTILES,
    SLO_METRIC,
    RequestLatencies,
    more_is_better,
    point_estimates,
)


def block_length(requests: int) -> int:
    """Return the length of the blocks that are drawn from a run: about the square root of N.

    Neighboring requests share queues, so their latencies are correlated; a block keeps that
    correlation. Longer runs afford longer blocks.
    """
    return max(1, round(requests**0.5))


def resample_counts(
    run_sizes: Sequence[int], samples: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return int32[samples, sum(run_sizes)]: how often each request is in each resample.

    For each resample as many runs are drawn with replacement as there are; within each drawn run,
    blocks of consecutive requests are drawn until it has its size again. Blocks wrap around the
    end of a run, so every request is equally likely (circular block bootstrap, Politis and Romano
    1992; resampling at both levels, Davison and Hinkley 1997, section 3.8).
    """
    runs = len(run_sizes)
    draws = rng.multinomial(runs, np.full(runs, 1 / runs), size=samples)
    parts = [_run_counts(size, draws[:, i], rng) for i, size in enumerate(run_sizes)]
    return np.concatenate(parts, axis=1)


def _run_counts(
    size: int, copies: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return int32[samples, size] for one run that resample b contains ``copies[b]`` times."""
    samples = len(copies)
    length = block_length(size)
    per_copy = -(-size // length)
    lengths = np.full(per_copy, length)
    lengths[-1] = size - (per_copy - 1) * length
    row = np.repeat(np.arange(samples), copies * per_copy)
    start = rng.integers(size, size=len(row))
    stop = start + np.tile(lengths, int(copies.sum()))
    # +1 where a block starts and -1 after its end: the running sum is the number of blocks.
    unrolled = 2 * size + 1
    edges = np.bincount(row * unrolled + start, minlength=samples * unrolled)
    edges -= np.bincount(row * unrolled + stop, minlength=samples * unrolled)
    counts = edges.reshape(samples, unrolled).cumsum(axis=1, dtype=np.int32)
    wrapped: NDArray[np.int32] = counts[:, :size] + counts[:, size : 2 * size]
    return wrapped


def weighted_means(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return float64[K, samples]: each quantity's mean in each resample, NaN where it is empty.

    Args:
        values: float64[N, K]; NaN is left out.
        weights: float64[samples, N], the counts as what is multiplied fastest.
    """
    measured = ~np.isnan(values)
    sums = weights @ np.where(measured, values, 0.0)
    totals = weights @ measured.astype(np.float64)
    means: NDArray[np.float64] = np.full(sums.shape, np.nan)
    np.divide(sums, totals, out=means, where=totals > 0)
    return means.T


def weighted_quantiles(
    values: NDArray[np.float64], counts: NDArray[np.int32], quantiles: Sequence[float]
) -> NDArray[np.float64]:
    """Return float64[len(quantiles), samples]: what ``numpy.quantile`` gives for each resample.

    One sort serves all resamples: in sorted order, the k-th smallest of a resample is the first
    value whose running count exceeds k.

    Args:
        values: float64[N]; NaN is left out.
        counts: int32[samples, N].
    """
    result = np.full((len(quantiles), len(counts)), np.nan)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN comes last
    if len(order) == 0:
        return result
    ranked = values[order]
    running = np.cumsum(counts.take(order, axis=1), axis=1, dtype=np.int32)
    totals = running[:, -1]
    filled = totals > 0
    for i, quantile in enumerate(quantiles):
        position = quantile * np.maximum(totals - 1, 0)
        lower = np.floor(position).astype(np.int64)
        upper = np.minimum(lower + 1, totals - 1)
        below = ranked[_first_exceeding(running, lower)]
        above = ranked[_first_exceeding(running, upper)]
        between = below + (position - lower) * (above - below)
        result[i, filled] = between[filled]
    return result


def _first_exceeding(running: NDArray[np.int32], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64[samples]: the first column of each row above ``rank``, or the last column."""
    rows, columns = running.shape
    low: NDArray[np.int64] = np.zeros(rows, dtype=np.int64)
    high: NDArray[np.int64] = np.full(rows, columns - 1)
    while (low < high).any():
        middle = (low + high) // 2
        found = running[np.arange(rows), middle] > rank
        high = np.where(found, middle, high)
        low = np.where(found, low, middle + 1)
        low = np.minimum(low, high)
    return low


CONFIDENCE = 0.95

MATERIAL = 0.01
"""Relevance: a smaller change than 1 % (of shares: 1 point) is slight, however certain it is."""

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
        material: the difference is at least ``MATERIAL``, relative or, of shares, absolute.
    """

    difference: float
    interval: Interval
    ratio: float | None
    ratio_interval: Interval | None
    win: bool
    loss: bool
    material: bool

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
            "material": self.material,
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
            weights = counts.astype(np.float64)
            parts.append(np.stack([_resampled_figures(one, counts, weights) for one in pooled]))
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
        scale = 1.0 if metric == SLO_METRIC else base
        return PairedDifference(
            difference=point - base,
            interval=interval,
            ratio=point / base if base > 0 else None,
            ratio_interval=Interval.of(ours / theirs) if (theirs > 0).all() else None,
            win=better,
            loss=worse,
            material=abs(point - base) >= MATERIAL * scale,
        )


def _resampled_figures(
    latencies: RequestLatencies, counts: NDArray[np.int32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return float64[M, samples]: ``COMPARED_METRICS`` of every resample."""
    values = [latencies[latency] for latency in LATENCIES]
    *means, attained = weighted_means(np.stack([*values, latencies.within_slo], axis=1), weights)
    rows = [
        row
        for mean, one in zip(means, values, strict=True)
        for row in (mean, *weighted_quantiles(one, counts, QUANTILES))
    ]
    return np.stack([*rows, attained])
