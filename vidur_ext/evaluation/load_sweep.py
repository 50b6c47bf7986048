"""The comparison at several loads: the same requests, arriving faster and faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.sections import ORACLES, PLANNERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.comparison import Comparison, is_realistic
from vidur_ext.evaluation.metrics import counted_e2e
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.evaluation.runner import held_out_workloads, read_policy, runs_on_engine
from vidur_ext.evaluation.saturation import ROUTER, saturation_of
from vidur_ext.processes import map_unordered
from vidur_ext.vidur.engine_inputs import engine_cluster

_SHOWN = ("e2e_mean_s", "ttft_p99_s")


@dataclass(frozen=True)
class AtLoad:
    """Policies, the best heuristic and planners at one load.

    Attributes:
        load: mean arrival rate as a share of saturation.
        rate: mean arrival rate [requests/s].
        comparison: of all of them, on all held-out workloads; its best heuristic is that of
            this load.
    """

    load: float
    rate: float
    comparison: Comparison

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        return {
            "load": self.load,
            "rate_requests_per_s": self.rate,
            "best_heuristic": self.comparison.best_heuristic,
            "schedulers": self._figures(),
        }

    def rows(self) -> list[dict[str, object]]:
        """Return a flat row per scheduler, best first."""
        at = {"load": self.load, "rate_requests_per_s": self.rate}
        return [{**at, **figures} for figures in self._figures()]

    def _figures(self) -> list[dict[str, object]]:
        return [
            {
                "name": one.name,
                **{metric: one.pooled[metric] for metric in _SHOWN},
                "e2e_vs_best_heuristic": one.against_best.e2e,
                "ttft_p99_vs_best_heuristic": one.against_best.ttft_p99,
            }
            for one in self.comparison.schedulers
        ]


@dataclass(frozen=True)
class LoadSweep:
    """By rising load. ``sustained`` is the rate of saturation [requests/s]."""

    sustained: float
    points: tuple[AtLoad, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the whole result as plain Python values, fit for strict JSON."""
        return {
            "sustained_requests_per_s": self.sustained,
            "router": ROUTER,
            "points": [point.to_dict() for point in self.points],
        }


@dataclass(frozen=True)
class _Job:
    """One scheduler at one load; ``policy`` is the file of one, if any."""

    load: float
    config: TrainingConfig
    scheduler: str
    policy: Path | None


def sweep_loads(
    config: TrainingConfig,
    policies: Mapping[str, Path],
    loads: Sequence[float],
    report: Callable[[str, int, int], None],
) -> LoadSweep:
    """Compare policies with the best heuristic and look-ahead at several loads.

    The compiled engine simulates. At every load the heuristic with the lowest mean E2E there is the
    best one.

    Heuristics and planners are those of ``evaluation.schedulers``, without oracles and controls.
    Work is spread over ``parallel_training.num_workers`` processes.

    Args:
        policies: policy file per name; the first is under test.
        loads: mean arrival rates as shares of saturation, each once.
        report: called with a scheduler as soon as it has run at all loads, how many have, and how
            many there are.

    Raises:
        UserError: the compiled engine does not simulate the run, or a policy cannot be used.
    """
    found = saturation_of(config)
    heuristics, planners = _rivals(config)
    scales = {load: load * found.sustained / mean(found.rates) for load in sorted(loads)}
    configs = {load: _at_rate(config, scale) for load, scale in scales.items()}
    jobs = [
        _Job(load, at_load, name, policies.get(name))
        for name in (*planners, *policies, *heuristics)  # what takes long first
        for load, at_load in configs.items()
    ]
    runs: dict[float, list[RunResult]] = {load: [] for load in configs}
    left = Counter(job.scheduler for job in jobs)
    for index, some in map_unordered(_runs_of, jobs, config.parallel_training.num_workers):
        job = jobs[index]
        runs[job.load].extend(some)
        left[job.scheduler] -= 1
        if not left[job.scheduler]:
            report(job.scheduler, sum(not count for count in left.values()), len(left))
    points = [
        AtLoad(
            load,
            load * found.sustained,
            _compared(at_load, [*policies, *planners], heuristics, runs[load]),
        )
        for load, at_load in configs.items()
    ]
    return LoadSweep(found.sustained, tuple(points))


def _rivals(config: TrainingConfig) -> tuple[list[str], list[str]]:
    """Return the heuristics that could be at work, and the planners that know no more than they."""
    named = config.evaluation.schedulers
    heuristics = [name for name in named if is_realistic(name, oracle=name in ORACLES)]
    return heuristics, [name for name in named if name in PLANNERS and name not in ORACLES]


def _at_rate(config: TrainingConfig, scale: float) -> TrainingConfig:
    """Return a config whose requests arrive ``scale`` times as fast."""
    workload = config.workload
    faster = workload.model_copy(update={"rate_scale": scale * workload.rate_scale})
    return config.model_copy(update={"workload": faster})


def _runs_of(job: _Job) -> list[RunResult]:
    config = job.config
    policy = None if job.policy is None else read_policy(config, job.policy)
    workloads = held_out_workloads(config, range(config.evaluation.num_seeds))
    return runs_on_engine(config, engine_cluster(config), job.scheduler, policy, workloads)


def _compared(
    config: TrainingConfig, names: list[str], heuristics: list[str], runs: list[RunResult]
) -> Comparison:
    """Compare the schedulers ``names``, of which the first is under test, and the best heuristic.

    The others are left out: intervals take long.
    """
    section = config.evaluation

    def mean_e2e_s(name: str) -> float:
        counted = [counted_e2e(r, section.warmup_fraction) for r in runs if r.scheduler == name]
        return float(np.concatenate(counted).mean())

    best = min(heuristics, key=mean_e2e_s, default=None)
    shown = names if best is None else [*names, best]
    return Comparison.from_runs(
        [run for run in runs if run.scheduler in shown],
        expected_schedulers=shown,
        expected_seeds=list(range(section.num_seeds)),
        baseline=shown[-1],
        under_test=names[0],
        devices=config.cluster.replica_devices(),
        engine="compiled",
        slo_ttft_s=section.slo_ttft_s,
        slo_tbt_s=section.slo_tbt_s,
        warmup_fraction=section.warmup_fraction,
        bootstrap_samples=section.bootstrap_samples,
        rng=generator(config.training.seed, Purpose.BOOTSTRAP),
    )
