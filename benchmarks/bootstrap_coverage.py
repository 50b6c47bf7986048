"""How often a 95 % interval of the comparison holds the true difference of two schedulers.

Two schedulers share most of their noise and differ by a known constant; latencies follow an
autoregressive process, so neighbouring requests are correlated as they are in queues.
"""

from __future__ import annotations

import numpy as np
from harness import run_benchmark
from numpy.typing import NDArray

from vidur_ext.evaluation.metrics import RequestLatencies
from vidur_ext.evaluation.statistics import Bootstrap

_DIFFERENCE = -0.5
_RESAMPLES = 200
_SETTLING = 300
_CASES = ((3, 0.0), (3, 0.9), (3, 0.98), (1, 0.9), (5, 0.9), (16, 0.9), (16, 0.98))
"""Held-out workloads, correlation of neighbouring requests."""


def _correlated(
    runs: int, requests: int, correlation: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return float64[runs, requests], zero mean, unit variance."""
    noise = rng.normal(size=(_SETTLING + requests, runs)) * np.sqrt(1 - correlation**2)
    values = np.zeros_like(noise)
    for i in range(1, len(noise)):
        values[i] = correlation * values[i - 1] + noise[i]
    settled: NDArray[np.float64] = values[_SETTLING:].T
    return settled


def _latencies(values: NDArray[np.float64]) -> RequestLatencies:
    flat = values.ravel()
    return RequestLatencies(flat, flat, flat, np.ones_like(flat))


def _covered(runs: int, requests: int, correlation: float, rng: np.random.Generator) -> list[bool]:
    """Return whether the intervals of the mean and of the p90 hold the truth, once."""
    shared, ours, theirs = (_correlated(runs, requests, correlation, rng) for _ in range(3))
    pair = [10 + _DIFFERENCE + 2 * shared + ours, 10 + 2 * shared + theirs]
    bootstrap = Bootstrap.of([_latencies(v) for v in pair], [requests] * runs, _RESAMPLES, rng)
    found = bootstrap.versus(0, 1)
    intervals = [found[metric] for metric in ("e2e_mean_s", "e2e_p90_s")]
    return [d is not None and d.interval.low <= _DIFFERENCE <= d.interval.high for d in intervals]


def _measure(quick: bool) -> dict[str, float]:
    trials, requests = (30, 300) if quick else (300, 1000)
    figures: dict[str, float] = {"trials": trials, "requests_per_run": requests}
    for runs, correlation in _CASES:
        rng = np.random.default_rng(1)
        shares = np.mean(
            [_covered(runs, requests, correlation, rng) for _ in range(trials)], axis=0
        )
        for statistic, share in zip(("mean", "p90"), shares, strict=True):
            figures[f"workloads_{runs}_correlation_{correlation}_{statistic}"] = float(share)
    return figures


if __name__ == "__main__":
    run_benchmark("Coverage of 95 % intervals", _measure)
