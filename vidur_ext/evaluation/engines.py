"""Both engines side by side: what a result of the compiled one is worth on Vidur."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.deployed.policy import NEAR_TIE
from ppo_scheduler.errors import UserError
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.metrics import CountedRun, Objectives, summarize_pooled
from vidur_ext.evaluation.run_result import RunGrid, RunResult, complete_grid
from vidur_ext.evaluation.runner import read_policy, routing_environments
from vidur_ext.vidur.engine_inputs import engine_cluster

TOLERANCE = 1e-9
"""Relative: engines whose times differ by more disagree."""

_TIMES = ("scheduled_at", "prefill_completed_at", "completed_at")


@dataclass(frozen=True)
class EngineFigures:
    """One scheduler on one engine; the first two count the requests that the comparison counts."""

    e2e_mean_s: float | None
    ttft_p99_s: float | None
    decisions_per_second: float
    """Simulated requests per second of real time."""


@dataclass(frozen=True)
class SchedulerOnEngines:
    """One scheduler on both engines, over the workloads that both simulated.

    Attributes:
        requests: requests of all workloads, warm-up included, as in what follows.
        routed_elsewhere: how many of them went to another replica than on Vidur.
        preference_gap: how much the policy, on the compiled engine and for one workload alone,
            prefers another replica at most to the one that it took on Vidur, over all requests of
            the workloads that were routed otherwise; None if there are none, or no policy. A
            policy's 32-bit arithmetic rounds differently when it decides for several workloads
            at once, and one choice at a near-tie changes all that comes after.
        completion_difference: largest relative difference of a completion time.
        earlier_difference: the same over all times before the first request of a workload was
            routed elsewhere. From there on the engines have different courses to simulate.
    """

    name: str
    vidur: EngineFigures
    compiled: EngineFigures
    requests: int
    routed_elsewhere: int
    preference_gap: float | None
    completion_difference: float
    earlier_difference: float

    @property
    def agrees(self) -> bool:
        """Whether nothing, or a policy's rounding at a near-tie, tells the engines apart."""
        near_tie = self.preference_gap is not None and self.preference_gap <= NEAR_TIE
        return (near_tie or not self.routed_elsewhere) and self.earlier_difference <= TOLERANCE

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        fields = {**vars(self), "vidur": vars(self.vidur), "compiled": vars(self.compiled)}
        return {**fields, "agrees": self.agrees}


@dataclass(frozen=True)
class EngineComparison:
    """Every scheduler on both engines, in the order in which they were named.

    ``seeds`` are the held-out workloads that both simulated.
    """

    seeds: tuple[int, ...]
    schedulers: tuple[SchedulerOnEngines, ...]

    @classmethod
    def from_runs(
        cls,
        vidur: Sequence[RunResult],
        compiled: Sequence[RunResult],
        preference_gaps: Mapping[tuple[str, int], float],
        *,
        warmup_fraction: float,
    ) -> EngineComparison:
        """Compare Vidur's runs with the compiled engine's of the same workloads.

        Args:
            compiled: the runs of more workloads may be among them.
            preference_gaps: by policy and seed, where the engines' choices differ.
            warmup_fraction: share of each run's first requests that latencies leave out.

        Raises:
            UserError: the engines' runs are not the same schedulers on the same requests.
        """
        names = list(dict.fromkeys(run.scheduler for run in vidur))
        seeds = sorted({run.seed for run in vidur})
        same = [run for run in compiled if run.seed in seeds]
        on_vidur, on_compiled = (complete_grid(runs, names, seeds) for runs in (vidur, same))
        _check_same_requests(on_vidur, on_compiled)
        schedulers = [
            _on_engines(
                [on_vidur[name, seed] for seed in seeds],
                [on_compiled[name, seed] for seed in seeds],
                [gap for (policy, _), gap in preference_gaps.items() if policy == name],
                warmup_fraction,
            )
            for name in names
        ]
        return cls(tuple(seeds), tuple(schedulers))

    def __getitem__(self, scheduler: str) -> SchedulerOnEngines:
        """Return one scheduler by name."""
        return next(one for one in self.schedulers if one.name == scheduler)

    def to_dict(self) -> dict[str, object]:
        """Return the whole result as plain Python values, fit for strict JSON."""
        return {
            "tolerance": TOLERANCE,
            "near_tie": NEAR_TIE,
            "workloads": list(self.seeds),
            "schedulers": [scheduler.to_dict() for scheduler in self.schedulers],
        }


def _check_same_requests(vidur: RunGrid, compiled: RunGrid) -> None:
    for (name, seed), run in vidur.items():
        if run.table.digest() != compiled[name, seed].table.digest():
            raise UserError(
                f"{name} did not meet the same requests on both engines on seed {seed}: run both "
                "on the same workload"
            )


def _on_engines(
    vidur: list[RunResult], compiled: list[RunResult], gaps: list[float], warmup_fraction: float
) -> SchedulerOnEngines:
    pairs = list(zip(vidur, compiled, strict=True))
    return SchedulerOnEngines(
        name=vidur[0].scheduler,
        vidur=_figures(vidur, warmup_fraction),
        compiled=_figures(compiled, warmup_fraction),
        requests=sum(len(run) for run in vidur),
        routed_elsewhere=sum(int((v.replica != c.replica).sum()) for v, c in pairs),
        preference_gap=max(gaps, default=None),
        completion_difference=max(
            float(_relative_difference(v.completed_at, c.completed_at).max()) for v, c in pairs
        ),
        earlier_difference=max(_earlier_difference(v, c) for v, c in pairs),
    )


def _figures(runs: list[RunResult], warmup_fraction: float) -> EngineFigures:
    # The figures taken here do not depend on the objectives.
    anything = Objectives(np.inf, np.inf)
    pooled = summarize_pooled([CountedRun.of(run, warmup_fraction, anything) for run in runs])
    return EngineFigures(pooled["e2e_mean_s"], pooled["ttft_p99_s"], pooled.decisions_per_second)


def first_routed_elsewhere(vidur: RunResult, compiled: RunResult) -> int | None:
    """Return the first request that went to another replica; None if all went to the same."""
    elsewhere = np.flatnonzero(vidur.replica != compiled.replica)
    if len(elsewhere) == 0:
        return None
    return int(elsewhere[np.argmin(vidur.arrived_at[elsewhere])])


def _earlier_difference(vidur: RunResult, compiled: RunResult) -> float:
    """Return the largest relative difference of what happened while the routing was the same."""
    first = first_routed_elsewhere(vidur, compiled)
    horizon = np.inf if first is None else vidur.arrived_at[first]
    largest = 0.0
    for name in _TIMES:
        ours, theirs = getattr(compiled, name), getattr(vidur, name)
        before = np.minimum(ours, theirs) < horizon
        difference = _relative_difference(theirs, ours)[before]
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest


def _relative_difference(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return |a - b| / max(a, b) of times [s] [N], which are not negative; 0 where both are 0."""
    larger = np.maximum(first, second)
    zeros = np.zeros_like(larger)
    return np.divide(np.abs(first - second), larger, out=zeros, where=larger > 0)


def check_engine(
    config: TrainingConfig,
    policies: Mapping[str, Path],
    vidur: Sequence[RunResult],
    compiled: Sequence[RunResult],
) -> EngineComparison:
    """Return how far the compiled engine's runs are those that Vidur made.

    Args:
        policies: policy file per name, as for ``compared_runs``, which made both.
        compiled: the runs of more workloads may be among them.

    Raises:
        UserError: a policy cannot be used.
    """
    counterparts = {(run.scheduler, run.seed): run for run in compiled}
    gaps: dict[tuple[str, int], float] = {}
    for run in vidur:
        key = run.scheduler, run.seed
        if run.scheduler not in policies or first_routed_elsewhere(run, counterparts[key]) is None:
            continue
        policy = read_policy(config, policies[run.scheduler])
        gaps[key] = preference_gap(config, policy, run)
    return EngineComparison.from_runs(
        vidur, compiled, gaps, warmup_fraction=config.evaluation.warmup_fraction
    )


def preference_gap(config: TrainingConfig, policy: RoutingPolicy, run: RunResult) -> float:
    """Return how much the policy, deciding for this workload alone, prefers another choice at most.

    The run's own course is followed: at each of its requests, the policy's largest logit less
    that of the run's choice.
    """
    envs = routing_environments(config, engine_cluster(config), 1)
    envs.begin([run.table])
    largest = 0.0
    while envs.waiting:
        [choice] = run.replica[envs.arriving]
        logits, _ = policy.evaluate(policy.normalize(envs.observation))
        largest = max(largest, float(logits[0].max() - logits[0, choice]))
        envs.step(np.array([choice]))
    return largest
