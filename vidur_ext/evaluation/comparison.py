"""All schedulers on all held-out workloads: figures, intervals, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppo_scheduler.errors import UserError
from vidur_ext.config.sections import CONTROLS
from vidur_ext.evaluation.metrics import (
    LEARNED,
    CountedRun,
    Objectives,
    Summary,
    pool,
    summarize,
    summarize_pooled,
)
from vidur_ext.evaluation.run_result import RunResult, complete_grid
from vidur_ext.evaluation.statistics import CONFIDENCE, Bootstrap, Interval, PairedDifference

COMPARISON_VERSION = 2

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
class SchedulerComparison:
    """One scheduler: pooled figures, their intervals, figures per seed, differences.

    ``versus`` maps a reference to the paired difference of each metric. Every scheduler is set
    against the baseline, and the policy under test against every other scheduler.
    """

    name: str
    uses_output_lengths: bool
    pooled: Summary
    intervals: dict[str, Interval | None]
    per_seed: dict[int, Summary]
    versus: dict[str, Differences]

    @property
    def learned(self) -> bool:
        """Whether this is the policy under test."""
        return self.name == LEARNED

    @property
    def control(self) -> bool:
        """Whether this is a deliberately bad scheduler."""
        return self.name in CONTROLS

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        return {
            "name": self.name,
            "learned": self.learned,
            "control": self.control,
            "uses_output_lengths": self.uses_output_lengths,
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
    """The result of an evaluation. ``schedulers`` are sorted by pooled mean E2E, best first."""

    baseline: str
    num_replicas: int
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
        slo_ttft_s: float,
        slo_tbt_s: float,
        warmup_fraction: float,
        bootstrap_samples: int,
        rng: np.random.Generator,
    ) -> Comparison:
        """Compare the runs of every expected scheduler on every expected seed.

        Args:
            baseline: the scheduler that all differences are taken to.
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
        sizes = [len(one.latencies) for one in counted[baseline]]
        pooled = [pool([one.latencies for one in counted[name]]) for name in expected_schedulers]
        bootstrap = Bootstrap.of(pooled, sizes, bootstrap_samples, rng)
        schedulers = [
            SchedulerComparison(
                name=name,
                uses_output_lengths=counted[name][0].run.uses_output_lengths,
                pooled=summarize_pooled(counted[name]),
                intervals=bootstrap.intervals(row),
                per_seed={one.run.seed: summarize(one) for one in counted[name]},
                versus={
                    other: bootstrap.versus(row, column)
                    for column, other in enumerate(expected_schedulers)
                    if other != name and (other == baseline or name == LEARNED)
                },
            )
            for row, name in enumerate(expected_schedulers)
        ]
        return cls(
            baseline=baseline,
            num_replicas=runs[0].num_replicas,
            objectives=objectives,
            warmup_fraction=warmup_fraction,
            bootstrap_samples=bootstrap_samples,
            workloads=tuple(_workload(one) for one in counted[baseline]),
            schedulers=tuple(sorted(schedulers, key=lambda one: one.pooled["e2e_mean_s"] or 0.0)),
        )

    def __getitem__(self, scheduler: str) -> SchedulerComparison:
        """Return one scheduler by name."""
        return next(one for one in self.schedulers if one.name == scheduler)

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

    def to_dict(self) -> dict[str, object]:
        """Return the whole result as plain Python values, fit for strict JSON."""
        return {
            "schema_version": COMPARISON_VERSION,
            "baseline": self.baseline,
            "num_replicas": self.num_replicas,
            "slo": {"ttft_s": self.objectives.ttft_s, "tbt_s": self.objectives.tbt_s},
            "warmup_fraction": self.warmup_fraction,
            "bootstrap": {"samples": self.bootstrap_samples, "confidence": CONFIDENCE},
            "toothless_controls": list(self.toothless_controls),
            "workloads": [workload.to_dict() for workload in self.workloads],
            "schedulers": [scheduler.to_dict() for scheduler in self.schedulers],
        }


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
