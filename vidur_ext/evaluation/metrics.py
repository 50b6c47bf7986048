"""What is measured: the latencies of each request and the figures made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidur_ext.evaluation.run_result import RunResult

QUANTILES = (0.5, 0.9, 0.99)
STATISTICS = ("mean", "p50", "p90", "p99")
LATENCIES = ("e2e", "ttft", "tbt")

Latency = Literal["e2e", "ttft", "tbt"]

LATENCY_METRICS = tuple(
    f"{latency}_{statistic}_s" for latency in LATENCIES for statistic in STATISTICS
)
"""Keys such as ``ttft_p99_s``; less is better."""

SLO_METRIC = "slo_attainment"
"""Share of requests within both objectives; more is better."""

COMPARED_METRICS = (*LATENCY_METRICS, SLO_METRIC)
"""Metrics that get confidence intervals and differences."""


def more_is_better(metric: str) -> bool:
    """Return whether a larger value of a compared metric is the better one."""
    return metric == SLO_METRIC


@dataclass(frozen=True)
class Objectives:
    """Service-level objectives of one request [s]."""

    ttft_s: float
    tbt_s: float


@dataclass(frozen=True, eq=False)
class RequestLatencies:
    """Per request, float64[N] s. ``tbt`` is NaN where there is no second output token."""

    e2e: NDArray[np.float64]
    ttft: NDArray[np.float64]
    tbt: NDArray[np.float64]
    within_slo: NDArray[np.float64]
    """1.0 where both objectives are met, else 0.0."""

    def __len__(self) -> int:
        return len(self.e2e)

    def get(self, latency: Latency) -> NDArray[np.float64]:
        """Return one latency of all requests."""
        values: NDArray[np.float64] = getattr(self, latency)
        return values


def request_latencies(run: RunResult, first: int, objectives: Objectives) -> RequestLatencies:
    """Return the latencies of requests ``first`` and later.

    TTFT = first output token - arrival; E2E = last output token - arrival; TBT = the mean gap
    between a request's output tokens, (completed - prefill_completed) / (decode_tokens - 1).
    A request of one output token has no TBT and meets that objective.
    """
    arrived = run.arrived_at[first:]
    first_token = run.prefill_completed_at[first:]
    completed = run.completed_at[first:]
    gaps = run.decode_tokens[first:] - 1
    tbt = np.full(len(arrived), np.nan)
    np.divide(completed - first_token, gaps, out=tbt, where=gaps > 0)
    ttft = first_token - arrived
    within = (ttft <= objectives.ttft_s) & ~(tbt > objectives.tbt_s)
    return RequestLatencies(completed - arrived, ttft, tbt, within.astype(np.float64))


def pool(parts: Sequence[RequestLatencies]) -> RequestLatencies:
    """Return the requests of several runs as one set."""
    return RequestLatencies(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("e2e", "ttft", "tbt", "within_slo")
        )
    )


def point_estimates(latencies: RequestLatencies) -> NDArray[np.float64]:
    """Return float64[len(COMPARED_METRICS)]: means, percentiles over requests, SLO attainment.

    Percentiles interpolate linearly (NumPy's default). NaN where there is nothing to measure:
    the TBT of requests with one output token each.
    """
    figures: list[float] = []
    for latency in LATENCIES:
        values = getattr(latencies, latency)
        values = values[~np.isnan(values)]
        if values.size == 0:
            figures.extend([np.nan] * len(STATISTICS))
        else:
            figures.extend([float(values.mean()), *np.quantile(values, QUANTILES).tolist()])
    return np.array([*figures, float(latencies.within_slo.mean())])
