"""Hierarchical block resampling, and statistics of the resamples without building them.

A resample is a column of counts: how often each request is in it. All schedulers are judged on
the same columns, which is what pairs them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def block_length(requests: int) -> int:
    """Return the length of the blocks that are drawn from a run: about the square root of N.

    Neighbouring requests share queues, so their latencies are correlated; a block keeps that
    correlation. Longer runs afford longer blocks.
    """
    return max(1, round(requests**0.5))


def resample_counts(
    run_sizes: Sequence[int], samples: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return int32[sum(run_sizes), samples]: how often each request is in each resample.

    For each resample as many runs are drawn with replacement as there are; within each drawn run,
    blocks of consecutive requests are drawn until it has its size again. Blocks wrap around the
    end of a run, so every request is equally likely (circular block bootstrap, Politis and Romano
    1992; resampling at both levels, Davison and Hinkley 1997, section 3.8).
    """
    runs = len(run_sizes)
    draws = rng.multinomial(runs, np.full(runs, 1 / runs), size=samples)
    return np.concatenate([_run_counts(size, draws[:, i], rng) for i, size in enumerate(run_sizes)])


def _run_counts(
    size: int, copies: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return int32[size, samples] for one run that resample b contains ``copies[b]`` times."""
    samples = len(copies)
    length = block_length(size)
    per_copy = -(-size // length)
    lengths = np.full(per_copy, length)
    lengths[-1] = size - (per_copy - 1) * length
    column = np.repeat(np.arange(samples), copies * per_copy)
    start = rng.integers(size, size=len(column))
    stop = start + np.tile(lengths, int(copies.sum()))
    # +1 where a block starts and -1 behind its end: the running sum is the number of blocks.
    unrolled = 2 * size + 1
    edges = np.bincount(start * samples + column, minlength=unrolled * samples)
    edges -= np.bincount(stop * samples + column, minlength=unrolled * samples)
    counts = edges.reshape(unrolled, samples).cumsum(axis=0, dtype=np.int32)
    wrapped: NDArray[np.int32] = counts[:size] + counts[size : 2 * size]
    return wrapped


def weighted_means(values: NDArray[np.float64], counts: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return float64[samples]: the mean of each resample, NaN where it is empty.

    Args:
        values: float64[N].
        counts: int32[N, samples].
    """
    totals = counts.sum(axis=0)
    sums = values @ counts
    means: NDArray[np.float64] = np.full(counts.shape[1], np.nan)
    np.divide(sums, totals, out=means, where=totals > 0)
    return means


def weighted_quantiles(
    values: NDArray[np.float64], counts: NDArray[np.int32], quantiles: Sequence[float]
) -> NDArray[np.float64]:
    """Return float64[len(quantiles), samples]: what ``numpy.quantile`` gives for each resample.

    One sort serves all resamples: in sorted order, the k-th smallest of a resample is the first
    value whose running count exceeds k. Arguments as in :func:`weighted_means`.
    """
    samples = counts.shape[1]
    result = np.full((len(quantiles), samples), np.nan)
    if len(values) == 0:
        return result
    order = np.argsort(values)
    ranked = values[order]
    running = np.cumsum(counts[order], axis=0, dtype=np.int32)
    totals = running[-1]
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
    """Return int64[samples]: the first row of each column above ``rank``, or the last row."""
    rows, columns = running.shape
    low: NDArray[np.int64] = np.zeros(columns, dtype=np.int64)
    high: NDArray[np.int64] = np.full(columns, rows - 1)
    while (low < high).any():
        middle = (low + high) // 2
        found = running[middle, np.arange(columns)] > rank
        high = np.where(found, middle, high)
        low = np.where(found, low, middle + 1)
        low = np.minimum(low, high)
    return low
