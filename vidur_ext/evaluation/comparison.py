"""All schedulers on all held-out workloads: figures, intervals, paired differences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppo_scheduler.errors import UserError
from vidur_ext.config.sections import CONTROLS, PLANNERS, SCHEDULERS
from vidur_ext.evaluation.metrics import (
    CONTROL_MARK,
    LEARNED,
    ORACLE_MARK,
    PLANNER_MARK,
    CountedRun,
    Objectives,
    Summary,
    pool,
    summarize,
    summarize_pooled,
)
from vidur_ext.evaluation.run_result import RunResult, complete_grid
from vidur_ext.evaluation.statistics import (
    CONFIDENCE,
    MATERIAL,
    Bootstrap,
    Interval,
    PairedDifference,
)

COMPARISON_VERSION = 3

Differences = dict[str, PairedDifference | None]


@dataclass(frozen=True)
class Workload:
    """One held-out workload, as all schedulers met it."""

    seed: int
    requests: int
    counted_requests: int
    digest: str

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        return dict(vars(self))


@dataclass(frozen=True)
class AgainstBest:
    """A scheduler against the comparison's best heuristic; None where there is none to divide by.

    Attributes:
        e2e: mean E2E / that of the best heuristic, over all workloads: 0.97 is 3 % better.
        ttft_p99: the same of p99 TTFT.
        workloads_won: on how many workloads its mean E2E is below the best heuristic's.
    """

    e2e: float | None
    ttft_p99: float | None
    workloads_won: int | None


@dataclass(frozen=True)
class SchedulerComparison:
    """One scheduler: pooled figures, their intervals, figures per seed, differences.

    Attributes:
        learned: whether this is the policy under test.
        versus: paired difference of each metric, by reference. Every scheduler is set against the
            baseline and the best heuristic, every policy against the one under test, and that one
            against all others.
    """

    name: str
    learned: bool
    uses_output_lengths: bool
    pooled: Summary
    intervals: dict[str, Interval | None]
    per_seed: dict[int, Summary]
    versus: dict[str, Differences]
    against_best: AgainstBest

    @property
    def policy(self) -> bool:
        """Whether this is a learned policy."""
        return is_policy(self.name)

    @property
    def control(self) -> bool:
        """Whether this is a deliberately bad scheduler."""
        return self.name in CONTROLS

    @property
    def planner(self) -> bool:
        """Whether this simulates every choice before it takes one."""
        return self.name in PLANNERS

    @property
    def realistic(self) -> bool:
        """Whether this is a router that could be at work, and is meant to be good."""
        return is_realistic(self.name, oracle=self.uses_output_lengths)

    @property
    def marked_name(self) -> str:
        """The name with the marks that it carries wherever it is shown."""
        marks = {
            ORACLE_MARK: self.uses_output_lengths,
            PLANNER_MARK: self.planner,
            CONTROL_MARK: self.control,
        }
        borne = "".join(mark for mark, bears in marks.items() if bears)
        return f"{self.name} {borne}" if borne else self.name

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        return {
            "name": self.name,
            "learned": self.learned,
            "policy": self.policy,
            "planner": self.planner,
            "control": self.control,
            "uses_output_lengths": self.uses_output_lengths,
            "e2e_vs_best_heuristic": self.against_best.e2e,
            "ttft_p99_vs_best_heuristic": self.against_best.ttft_p99,
            "workloads_won": self.against_best.workloads_won,
            "pooled": self.pooled.to_dict(),
            "intervals": {m: None if i is None else i.to_list() for m, i in self.intervals.items()},
            "per_seed": [{"seed": s, **summary.to_dict()} for s, summary in self.per_seed.items()],
            "versus": {
                reference: {m: None if d is None else d.to_dict() for m, d in differences.items()}
                for reference, differences in self.versus.items()
            },
        }


@dataclass(frozen=True)
class Comparison:
    """The result of an evaluation. ``schedulers`` are sorted by pooled mean E2E, best first.

    ``best_heuristic`` has the lowest pooled mean E2E of those that are realistic: no oracle,
    control or planner. It is None if there is none. ``devices`` are the GPUs of the replicas, empty
    where nobody said which.
    """

    engine: str
    baseline: str
    best_heuristic: str | None
    num_replicas: int
    devices: tuple[str, ...]
    objectives: Objectives
    warmup_fraction: float
    bootstrap_samples: int
    workloads: tuple[Workload, ...]
    schedulers: tuple[SchedulerComparison, ...]

    @classmethod
    def from_runs(
        cls,
        runs: Sequence[RunResult],
        expected_schedulers: Sequence[str],
        expected_seeds: Sequence[int],
        baseline: str = "least_outstanding",
        *,
        under_test: str = LEARNED,
        devices: Sequence[str] = (),
        engine: str,
        slo_ttft_s: float,
        slo_tbt_s: float,
        warmup_fraction: float,
        bootstrap_samples: int,
        rng: np.random.Generator,
    ) -> Comparison:
        """Compare the runs of every expected scheduler on every expected seed.

        Args:
            baseline: the scheduler that all differences are taken to.
            under_test: the policy that the report is about, if it is among the schedulers.
            devices: GPU of each replica, if it is known.
            engine: what simulated the runs, "compiled" or "vidur".
            slo_ttft_s: objective for the time to first token [s].
            slo_tbt_s: objective for the mean time between tokens [s].
            warmup_fraction: share of each run's first requests that is not counted, in [0, 1).
            bootstrap_samples: resamples behind the confidence intervals.
            rng: draws the resamples.

        Raises:
            UserError: see :func:`complete_grid`; or an argument out of its range.
        """
        _check_arguments(
            expected_schedulers, expected_seeds, baseline, warmup_fraction, bootstrap_samples
        )
        grid = complete_grid(runs, expected_schedulers, expected_seeds)
        objectives = Objectives(slo_ttft_s, slo_tbt_s)
        counted = {
            name: [
                CountedRun.of(grid[name, s], warmup_fraction, objectives) for s in expected_seeds
            ]
            for name in expected_schedulers
        }
        latencies = [pool([one.latencies for one in counted[name]]) for name in expected_schedulers]
        sizes = [len(one.latencies) for one in counted[baseline]]
        bootstrap = Bootstrap.of(latencies, sizes, bootstrap_samples, rng)
        pooled = {name: summarize_pooled(counted[name]) for name in expected_schedulers}
        per_seed = {
            name: {one.run.seed: summarize(one) for one in counted[name]}
            for name in expected_schedulers
        }
        oracles = {name for name in expected_schedulers if counted[name][0].run.uses_output_lengths}
        best = _best_heuristic(pooled, oracles)
        schedulers = [
            SchedulerComparison(
                name=name,
                learned=name == under_test,
                uses_output_lengths=name in oracles,
                pooled=pooled[name],
                intervals=bootstrap.intervals(row),
                per_seed=per_seed[name],
                versus={
                    other: bootstrap.versus(row, column)
                    for column, other in enumerate(expected_schedulers)
                    if other != name
                    and (
                        other in (baseline, best)
                        or name == under_test
                        or (other == under_test and is_policy(name))
                    )
                },
                against_best=(
                    AgainstBest(None, None, None)
                    if best is None
                    else AgainstBest(
                        _ratio(pooled[name], pooled[best], "e2e_mean_s"),
                        _ratio(pooled[name], pooled[best], "ttft_p99_s"),
                        _wins(per_seed[name], per_seed[best]),
                    )
                ),
            )
            for row, name in enumerate(expected_schedulers)
        ]
        return cls(
            engine=engine,
            baseline=baseline,
            best_heuristic=best,
            num_replicas=runs[0].num_replicas,
            devices=tuple(devices),
            objectives=objectives,
            warmup_fraction=warmup_fraction,
            bootstrap_samples=bootstrap_samples,
            workloads=tuple(_workload(one) for one in counted[baseline]),
            schedulers=tuple(sorted(schedulers, key=lambda one: _mean_e2e_s(one.pooled))),
        )

    def __getitem__(self, scheduler: str) -> SchedulerComparison:
        """Return one scheduler by name."""
        return next(one for one in self.schedulers if one.name == scheduler)

    @property
    def under_test(self) -> SchedulerComparison | None:
        """The policy that the report is about; None if it is about none."""
        return next((one for one in self.schedulers if one.learned), None)

    @property
    def mixed(self) -> bool:
        """Whether replicas have different GPUs."""
        return len(set(self.devices)) > 1

    def replica_name(self, replica: int) -> str:
        """Return the number of a replica, with its GPU where that is not everybody's."""
        return f"{self.devices[replica]} {replica}" if self.mixed else str(replica)

    @property
    def toothless_controls(self) -> tuple[str, ...]:
        """Controls whose mean E2E is not clearly worse than the baseline's.

        If there is one, the load is too low or the runs are too short to tell schedulers apart.
        """
        return tuple(
            one.name
            for one in self.schedulers
            if one.control and one.name != self.baseline and not _loses(one, self.baseline)
        )

    @property
    def indifferent(self) -> bool:
        """Whether no two realistic schedulers differ by as much as matters, in mean E2E."""
        means = [_mean_e2e_s(one.pooled) for one in self.schedulers if one.realistic]
        return len(means) > 1 and max(means) < (1 + MATERIAL) * min(means)

    def to_dict(self) -> dict[str, object]:
        """Return the whole result as plain Python values, fit for strict JSON."""
        return {
            "schema_version": COMPARISON_VERSION,
            "engine": self.engine,
            "baseline": self.baseline,
            "best_heuristic": self.best_heuristic,
            "num_replicas": self.num_replicas,
            "devices": list(self.devices),
            "slo": {"ttft_s": self.objectives.ttft_s, "tbt_s": self.objectives.tbt_s},
            "warmup_fraction": self.warmup_fraction,
            "bootstrap": {"samples": self.bootstrap_samples, "confidence": CONFIDENCE},
            "indifferent": self.indifferent,
            "toothless_controls": list(self.toothless_controls),
            "workloads": [workload.to_dict() for workload in self.workloads],
            "schedulers": [scheduler.to_dict() for scheduler in self.schedulers],
        }


def is_policy(name: str) -> bool:
    """Return whether a name is a policy's: it is none that a config can name."""
    return name not in SCHEDULERS


def is_realistic(name: str, *, oracle: bool) -> bool:
    """Return whether a scheduler could be at work and is meant to be good."""
    return not oracle and name not in CONTROLS and name not in PLANNERS


def _best_heuristic(pooled: Mapping[str, Summary], oracles: Collection[str]) -> str | None:
    heuristics = [
        name
        for name in pooled
        if not is_policy(name) and is_realistic(name, oracle=name in oracles)
    ]
    return min(heuristics, key=lambda name: _mean_e2e_s(pooled[name]), default=None)


def _mean_e2e_s(summary: Summary) -> float:
    mean = summary["e2e_mean_s"]
    assert mean is not None, "every request has an end"
    return mean


def _ratio(ours: Summary, theirs: Summary, metric: str) -> float | None:
    value, base = ours[metric], theirs[metric]
    return None if value is None or not base else value / base


def _wins(ours: Mapping[int, Summary], theirs: Mapping[int, Summary]) -> int:
    return sum(_mean_e2e_s(ours[seed]) < _mean_e2e_s(theirs[seed]) for seed in ours)


def _loses(scheduler: SchedulerComparison, baseline: str) -> bool:
    difference = scheduler.versus[baseline]["e2e_mean_s"]
    return difference is not None and difference.loss


def _workload(counted: CountedRun) -> Workload:
    run = counted.run
    return Workload(run.seed, len(run), len(counted.latencies), run.table.digest()[:16])


def _check_arguments(
    schedulers: Sequence[str],
    seeds: Sequence[int],
    baseline: str,
    warmup_fraction: float,
    bootstrap_samples: int,
) -> None:
    if len(set(schedulers)) != len(schedulers) or len(set(seeds)) != len(seeds) or not seeds:
        raise UserError(
            f"expected schedulers {list(schedulers)} and seeds {list(seeds)} must each be named "
            "once, and there must be at least one seed"
        )
    if baseline not in schedulers:
        raise UserError(f"baseline {baseline!r} must be one of the schedulers {list(schedulers)}")
    if not 0 <= warmup_fraction < 1:
        raise UserError(f"warmup_fraction is {warmup_fraction}; expected a share in [0, 1)")
    if bootstrap_samples < 1:
        raise UserError(f"bootstrap_samples is {bootstrap_samples}; expected at least 1")
