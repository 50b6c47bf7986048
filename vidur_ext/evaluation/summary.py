"""The figures of one scheduler: per run, and pooled over the held-out workloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidur_ext.evaluation.metrics import (
    COMPARED_METRICS,
    Objectives,
    RequestLatencies,
    point_estimates,
    pool,
    request_latencies,
)
from vidur_ext.evaluation.run_result import RunResult


@dataclass(frozen=True)
class Summary:
    """Figures over a set of requests; None where there is nothing to measure.

    Attributes:
        requests: requests that were counted.
        figures: value of each of ``COMPARED_METRICS``.
        requests_per_s: counted requests / makespan.
        output_tokens_per_s: their output tokens / makespan.
        makespan_s: from the first counted arrival to the last completion; a sum when pooled.
        replica_shares: share of the requests per replica.
        imbalance: largest share * replicas: 1 is even, R is everything on one of R replicas.
        decisions_per_second: routed requests per second of real time.
    """

    requests: int
    figures: dict[str, float | None]
    requests_per_s: float
    output_tokens_per_s: float
    makespan_s: float
    replica_shares: tuple[float, ...]
    imbalance: float
    decisions_per_second: float

    def __getitem__(self, metric: str) -> float | None:
        """Return the value of one of ``COMPARED_METRICS``."""
        return self.figures[metric]

    def to_dict(self) -> dict[str, object]:
        """Return plain Python numbers, lists and dicts."""
        return {
            "requests": self.requests,
            **self.figures,
            "requests_per_s": self.requests_per_s,
            "output_tokens_per_s": self.output_tokens_per_s,
            "makespan_s": self.makespan_s,
            "replica_shares": list(self.replica_shares),
            "imbalance": self.imbalance,
            "decisions_per_second": self.decisions_per_second,
        }


@dataclass(frozen=True, eq=False)
class CountedRun:
    """A run and which of its requests count: those after the warm-up."""

    run: RunResult
    first: int
    latencies: RequestLatencies

    @classmethod
    def of(cls, run: RunResult, warmup_fraction: float, objectives: Objectives) -> CountedRun:
        """Leave out the first ``floor(warmup_fraction * N)`` requests, of an empty cluster."""
        first = int(warmup_fraction * len(run))
        return cls(run, first, request_latencies(run, first, objectives))


def summarise(counted: CountedRun) -> Summary:
    """Return the figures of one run."""
    run, first = counted.run, counted.first
    makespan = float(run.completed_at[first:].max() - run.arrived_at[first])
    shares = np.bincount(run.replica[first:], minlength=run.num_replicas) / len(counted.latencies)
    return Summary(
        requests=len(counted.latencies),
        figures=named_figures(point_estimates(counted.latencies)),
        requests_per_s=len(counted.latencies) / makespan,
        output_tokens_per_s=float(run.decode_tokens[first:].sum()) / makespan,
        makespan_s=makespan,
        replica_shares=tuple(shares.tolist()),
        imbalance=float(shares.max() * run.num_replicas),
        decisions_per_second=run.decisions_per_second,
    )


def summarise_pooled(counted: Sequence[CountedRun]) -> Summary:
    """Return the figures of several runs of one scheduler taken together.

    Means, percentiles, attainment and shares are those of all requests as one set; rates are total
    counts over the sum of makespans; the imbalance is the mean of the runs' own, as replicas that
    take turns at being overloaded are not balanced.
    """
    runs = [summarise(one) for one in counted]
    requests = np.array([run.requests for run in runs])
    makespans = np.array([run.makespan_s for run in runs])
    tokens = np.array([run.output_tokens_per_s for run in runs]) * makespans
    shares = np.average([run.replica_shares for run in runs], axis=0, weights=requests)
    real_s = sum(len(one.run) / one.run.decisions_per_second for one in counted)
    return Summary(
        requests=int(requests.sum()),
        figures=named_figures(point_estimates(pool([one.latencies for one in counted]))),
        requests_per_s=float(requests.sum() / makespans.sum()),
        output_tokens_per_s=float(tokens.sum() / makespans.sum()),
        makespan_s=float(makespans.sum()),
        replica_shares=tuple(shares.tolist()),
        imbalance=float(np.mean([run.imbalance for run in runs])),
        decisions_per_second=sum(len(one.run) for one in counted) / real_s,
    )


def named_figures(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the values of ``COMPARED_METRICS`` by name, None for NaN."""
    return {
        metric: None if np.isnan(value) else float(value)
        for metric, value in zip(COMPARED_METRICS, values, strict=True)
    }
