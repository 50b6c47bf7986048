"""What is measured: the latencies of each request, the figures of a scheduler made of them, per run
and pooled, and how a comparison marks schedulers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vidur_ext.evaluation.load import Load, load_of, mean_load
from vidur_ext.evaluation.reuse import Reuse, pooled_reuse, reuse_of
from vidur_ext.evaluation.run_result import RunResult

QUANTILES = (0.5, 0.9, 0.99)
STATISTICS = ("mean", "p50", "p90", "p99")

Latency = Literal["e2e", "ttft", "tbt"]

LATENCIES: tuple[Latency, ...] = get_args(Latency)

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

    def __getitem__(self, latency: Latency) -> NDArray[np.float64]:
        """Return one latency of all requests."""
        return {"e2e": self.e2e, "ttft": self.ttft, "tbt": self.tbt}[latency]


def request_latencies(run: RunResult, first: int, objectives: Objectives) -> RequestLatencies:
    """Return the latencies of requests ``first`` and later.

    TTFT = first output token - arrival; E2E = last output token - arrival; TBT = the mean gap
    between a request's output tokens, (completed - prefill_completed) / (decode_tokens - 1).
    A request of one output token has no TBT and meets that objective.
    """
    arrived = run.arrived_at[first:]
    first_token = run.prefill_completed_at[first:]
    completed = run.completed_at[first:]
    gaps = run.table.decode_tokens[first:] - 1
    tbt = np.full(len(arrived), np.nan)
    np.divide(completed - first_token, gaps, out=tbt, where=gaps > 0)
    ttft = first_token - arrived
    within = (ttft <= objectives.ttft_s) & ~(tbt > objectives.tbt_s)
    return RequestLatencies(completed - arrived, ttft, tbt, within.astype(np.float64))


def pool(parts: Sequence[RequestLatencies]) -> RequestLatencies:
    """Return the requests of several runs as one set."""
    return RequestLatencies(
        e2e=np.concatenate([part.e2e for part in parts]),
        ttft=np.concatenate([part.ttft for part in parts]),
        tbt=np.concatenate([part.tbt for part in parts]),
        within_slo=np.concatenate([part.within_slo for part in parts]),
    )


def point_estimates(latencies: RequestLatencies) -> NDArray[np.float64]:
    """Return float64[len(COMPARED_METRICS)]: means, percentiles over requests, SLO attainment.

    Percentiles interpolate linearly (NumPy's default). NaN where there is nothing to measure:
    the TBT of requests with one output token each.
    """
    figures: list[float] = []
    for latency in LATENCIES:
        values = latencies[latency]
        values = values[~np.isnan(values)]
        if values.size == 0:
            figures.extend([np.nan] * len(STATISTICS))
        else:
            figures.extend([float(values.mean()), *np.quantile(values, QUANTILES).tolist()])
    return np.array([*figures, float(latencies.within_slo.mean())])


LEARNED = "ppo"
"""The policy under test; reports highlight it and set it against every other scheduler."""

ORACLE_MARK = "†"
"""Put after schedulers that know true output lengths, which no real router does."""

PLANNER_MARK = "§"
"""Put after planners."""

CONTROL_MARK = "‡"
"""Put after controls."""

ORACLE_NOTE = f"{ORACLE_MARK} knows true output lengths, which no real router does: not a rival"
PLANNER_NOTE = (
    f"{PLANNER_MARK} plans by simulating every choice: what the policy is taught by, and the rival "
    "to beat"
)
CONTROL_NOTE = (
    f"{CONTROL_MARK} deliberately bad control: a workload on which it does not lose proves nothing"
)


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
        load: how much the cluster had to do.
        reuse: what it made of what requests have in common.
        decisions_per_second: simulated requests per second of real time, all requests of the runs.
    """

    requests: int
    figures: dict[str, float | None]
    requests_per_s: float
    output_tokens_per_s: float
    makespan_s: float
    replica_shares: tuple[float, ...]
    imbalance: float
    load: Load
    reuse: Reuse
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
            "load": self.load.to_dict(),
            "reuse": self.reuse.to_dict(),
            "decisions_per_second": self.decisions_per_second,
        }


def first_counted(run: RunResult, warmup_fraction: float) -> int:
    """Return the number of the first request after the warm-up."""
    return int(warmup_fraction * len(run))


def counted_e2e(run: RunResult, warmup_fraction: float) -> NDArray[np.float64]:
    """Return the E2E latency of each request that counts [s]."""
    first = first_counted(run, warmup_fraction)
    return run.completed_at[first:] - run.arrived_at[first:]


@dataclass(frozen=True, eq=False)
class CountedRun:
    """A run and which of its requests count: those after the warm-up."""

    run: RunResult
    first: int
    latencies: RequestLatencies

    @classmethod
    def of(cls, run: RunResult, warmup_fraction: float, objectives: Objectives) -> CountedRun:
        """Leave out the first ``floor(warmup_fraction * N)`` requests, of an empty cluster."""
        first = first_counted(run, warmup_fraction)
        return cls(run, first, request_latencies(run, first, objectives))


def summarize(counted: CountedRun) -> Summary:
    """Return the figures of one run."""
    run, first = counted.run, counted.first
    makespan = float(run.completed_at[first:].max() - run.arrived_at[first:].min())
    shares = np.bincount(run.replica[first:], minlength=run.num_replicas) / len(counted.latencies)
    return Summary(
        requests=len(counted.latencies),
        figures=named_figures(point_estimates(counted.latencies)),
        requests_per_s=len(counted.latencies) / makespan,
        output_tokens_per_s=float(run.table.decode_tokens[first:].sum()) / makespan,
        makespan_s=makespan,
        replica_shares=tuple(shares.tolist()),
        imbalance=float(shares.max() * run.num_replicas),
        load=load_of(run, first),
        reuse=reuse_of(run, first),
        decisions_per_second=run.decisions_per_second,
    )


def summarize_pooled(counted: Sequence[CountedRun]) -> Summary:
    """Return the figures of several runs of one scheduler taken together.

    Means, percentiles, attainment and shares are those of all requests as one set; rates are total
    counts over the sum of makespans; the imbalance is the mean of the runs' own, as replicas that
    take turns at being overloaded are not balanced.
    """
    runs = [summarize(one) for one in counted]
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
        load=mean_load([run.load for run in runs], makespans.tolist()),
        reuse=pooled_reuse([run.reuse for run in runs]),
        decisions_per_second=sum(len(one.run) for one in counted) / real_s,
    )


def named_figures(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the values of ``COMPARED_METRICS`` by name, None for NaN."""
    return {
        metric: None if np.isnan(value) else float(value)
        for metric, value in zip(COMPARED_METRICS, values, strict=True)
    }
