"""Heuristics, planner and taught policies on validation workloads, spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ppo_scheduler.errors import UserError
from vidur_ext.config.sections import ORACLES
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.comparison import is_realistic
from vidur_ext.evaluation.metrics import CountedRun, Objectives, summarize_pooled
from vidur_ext.evaluation.runner import Workloads, runs_on_engine
from vidur_ext.pareto.front import Latencies, Tradeoff, front_of
from vidur_ext.processes import map_unordered
from vidur_ext.routing.features import observation_schema
from vidur_ext.versions import package_versions
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.warmstart.cost_labels import CostLabels
from vidur_ext.warmstart.cost_learning import Lessons, learn_from_costs
from vidur_ext.workload.run_workloads import describe_requests, validation_table

PLANNER = "lookahead"
POLICY = "policy"


@dataclass(frozen=True)
class Measured:
    """A heuristic, or planner or policy at the L of ``config``, and how it did."""

    config: TrainingConfig
    router: str
    latencies: Latencies

    def describe(self) -> str:
        """Return it in a line."""
        return (
            f"{self.router}{self._weight()}: mean E2E {self.latencies.e2e_mean_s:.3f} s, "
            f"p99 TTFT {self.latencies.ttft_p99_s:.3f} s"
        )

    def _weight(self) -> str:
        weighted = self.router in (PLANNER, POLICY)
        return f", L = {self.config.lookahead.ttft_weight:g}" if weighted else ""


Watch = Callable[[Measured], None]


def check_measurable(config: TrainingConfig, *, policies: bool) -> None:
    """Raise ``UserError`` unless L makes a difference to what would be measured."""
    if config.simulation.engine != "compiled":
        raise UserError(
            f'the front is measured on the compiled engine, not on "{config.simulation.engine}": '
            'set simulation.engine to "compiled"'
        )
    if policies and config.warmstart.method != "costs":
        raise UserError(
            f'warmstart.method="{config.warmstart.method}" teaches the same policy for every L: '
            'set it to "costs", or say --no-policies'
        )
    if not _heuristics(config):
        raise UserError(
            "evaluation.schedulers names no heuristic that could be at work, to compare with: "
            "add one, e.g. min_predicted_latency"
        )


def measure(
    config: TrainingConfig,
    by_weight: Mapping[float, TrainingConfig],
    watch: Watch,
    *,
    policies: bool,
) -> Tradeoff:
    """Run everything on ``checkpointing.validation_seeds`` workloads; the comparison's stay unseen.

    Policies are those of the warm start alone. Work is spread over
    ``parallel_training.num_workers`` processes.

    Args:
        by_weight: the same config by its L.
        watch: is told of everything as it is there.
        policies: whether to teach a policy for every L.

    Raises:
        UserError: the trace is too short for so many workloads.
    """
    workloads = _workloads(config)
    heuristics = [(config, name) for name in _heuristics(config)]
    # The longest work first, so that no process is left with it at the end.
    routers = [(one, POLICY) for one in by_weight.values() if policies]
    routers += [(one, PLANNER) for one in by_weight.values()]
    measured = []
    jobs = [*routers, *heuristics]
    for _, one in map_unordered(_measured, jobs, config.parallel_training.num_workers):
        watch(one)
        measured.append(one)
    best = min(
        (one for one in measured if one.router not in (PLANNER, POLICY)),
        key=lambda one: one.latencies.e2e_mean_s,
    )
    fronts = [
        front_of(
            router,
            best.latencies,
            {
                one.config.lookahead.ttft_weight: one.latencies
                for one in measured
                if one.router == router
            },
        )
        for router in ((PLANNER, POLICY) if policies else (PLANNER,))
    ]
    return Tradeoff(best.router, best.latencies, tuple(fronts), _facts(config, workloads))


def _heuristics(config: TrainingConfig) -> list[str]:
    return [
        name for name in config.evaluation.schedulers if is_realistic(name, oracle=name in ORACLES)
    ]


def _workloads(config: TrainingConfig) -> Workloads:
    seeds = range(config.checkpointing.validation_seeds)
    return {seed: validation_table(config, seed) for seed in seeds}


def _measured(job: tuple[TrainingConfig, str]) -> Measured:
    config, router = job
    policy = None
    if router == POLICY:
        schema = observation_schema(config.observation)
        first = CostLabels(config).collect(0, None)
        policy = learn_from_costs([Lessons(config, first)], schema, lambda report: None).policy
    runs = runs_on_engine(config, engine_cluster(config), router, policy, _workloads(config))
    section = config.evaluation
    objectives = Objectives(section.slo_ttft_s, section.slo_tbt_s)
    figures = summarize_pooled(
        [CountedRun.of(run, section.warmup_fraction, objectives) for run in runs]
    )
    e2e, ttft = figures["e2e_mean_s"], figures["ttft_p99_s"]
    assert e2e is not None, "every request has an end"
    assert ttft is not None, "every request has a first token"
    return Measured(config, router, Latencies(e2e, ttft))


def _facts(config: TrainingConfig, workloads: Workloads) -> dict[str, str]:
    cluster, section = config.cluster, config.evaluation
    requests = len(next(iter(workloads.values())))
    return {
        "Workload": describe_requests(config.workload),
        "Measured on": f"{len(workloads)} validation workloads of {requests} requests, the first "
        f"{section.warmup_fraction:.0%} of each not counted",
        "Cluster": f"{cluster.num_replicas} x {cluster.model_name} on {cluster.device_counts()}",
        "L of the config": f"{config.lookahead.ttft_weight:g}",
        "Seed": str(config.training.seed),
        "Config digest": config.digest()[:16],
        **{f"Version of {name}": text for name, text in package_versions().items()},
    }
