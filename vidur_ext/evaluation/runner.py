"""Running schedulers over workloads, on either engine: one way for comparison and validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy, load_policy
from vidur_ext.config.sections import ORACLES, PLANNERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.layout import Cluster
from vidur_ext.evaluation.run_result import RunResult, Served
from vidur_ext.processes import map_unordered
from vidur_ext.routing.features import observation_schema
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, SinceLastDecision
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.vidur.simulation import isolated_simulation, routed_by, simulation_of
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.run_workloads import evaluation_table

Workloads = Mapping[int, RequestTable]
"""Requests by the seed that the runs on them are called by."""


class GreedyRouter:
    """A frozen policy that always takes its most probable replica."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self._policy = policy

    def observe(
        self,
        snapshot: ClusterSnapshot,
        interval: SinceLastDecision,
        request: ArrivingRequest | None,
    ) -> None:
        """A policy decides on observations alone."""

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        return self._policy.greedy(observation)


def runs_on_vidur(
    config: TrainingConfig, name: str, policy: RoutingPolicy | None, workloads: Workloads
) -> list[RunResult]:
    """Run one scheduler on Vidur, one workload after the other; other simulations are untouched.

    Args:
        name: what the runs are called; without a policy the heuristic that routes.
    """
    runs = []
    for seed, table in workloads.items():
        with isolated_simulation():
            simulation = (
                simulation_of(config, name, table)
                if policy is None
                else routed_by(GreedyRouter(policy), config, table)
            )
            started = time.perf_counter()
            simulation.run()
            elapsed = time.perf_counter() - started
        runs.append(
            RunResult.of(
                name,
                seed,
                table,
                Served(
                    simulation.times("arrived_at"),
                    simulation.times("scheduled_at"),
                    simulation.times("prefill_completed_at"),
                    simulation.times("completed_at"),
                    simulation.routing,
                    simulation.found_tokens,
                    simulation.preemptions,
                ),
                num_replicas=config.cluster.num_replicas,
                oracle=_is_oracle(config, name, policy),
                speed=len(table) / elapsed,
            )
        )
    return runs


def runs_on_engine(
    config: TrainingConfig,
    cluster: Cluster,
    name: str,
    policy: RoutingPolicy | None,
    workloads: Workloads,
) -> list[RunResult]:
    """Run one scheduler on the compiled engine; a policy routes all workloads side by side.

    Args:
        name: what the runs are called; without a policy the heuristic that routes.

    Returns one run per workload; the speed of a policy's is that of all together.

    Raises:
        UserError: a policy's workloads differ in length.
    """
    if policy is None:
        return [_heuristic_run(config, cluster, name, *workload) for workload in workloads.items()]
    envs = routing_environments(config, cluster, len(workloads))
    envs.begin(list(workloads.values()))
    started = time.perf_counter()
    while envs.waiting:
        envs.step(policy.greedy(envs.observation))
    elapsed = time.perf_counter() - started
    requests = sum(len(table) for table in workloads.values())
    return [
        RunResult.of(
            name,
            seed,
            table,
            Served(
                envs.arrived_at[row],
                envs.scheduled_at[row],
                envs.prefill_completed_at[row],
                envs.completed_at[row],
                envs.routing[row],
                envs.found_tokens[row],
                envs.preemptions[row],
            ),
            num_replicas=envs.num_replicas,
            oracle=_is_oracle(config, name, policy),
            speed=requests / elapsed,
        )
        for row, (seed, table) in enumerate(workloads.items())
    ]


def _heuristic_run(
    config: TrainingConfig, cluster: Cluster, name: str, seed: int, table: RequestTable
) -> RunResult:
    ties = config.training.seed % 2**32
    weight = config.lookahead.ttft_weight

    def simulation_of_engine(requests: RequestTable) -> CompiledSimulation:
        return CompiledSimulation(cluster, requests, name, seed=ties, ttft_weight=weight)

    # The first run of a process loads machine code, which is not simulation: it is not timed.
    simulation_of_engine(table.slice(0, 1)).run()
    simulation = simulation_of_engine(table)
    started = time.perf_counter()
    simulation.run()
    elapsed = time.perf_counter() - started
    return RunResult.of(
        name,
        seed,
        table,
        Served(
            simulation.arrived_at,
            simulation.scheduled_at,
            simulation.prefill_completed_at,
            simulation.completed_at,
            simulation.routing,
            simulation.found_tokens,
            simulation.preemptions,
        ),
        num_replicas=cluster.num_replicas,
        oracle=_is_oracle(config, name, None),
        speed=len(table) / elapsed,
    )


def routing_environments(
    config: TrainingConfig, cluster: Cluster, num_envs: int
) -> RoutingEnvironments:
    """Return environments of a cluster that show and reward what a config says."""
    return RoutingEnvironments(cluster, config, num_envs)


def _is_oracle(config: TrainingConfig, name: str, policy: RoutingPolicy | None) -> bool:
    """Return whether a policy or heuristic knows true output lengths."""
    if policy is not None:
        return config.observation.output_length == "oracle"
    return name in ORACLES


def read_policy(config: TrainingConfig, path: Path) -> RoutingPolicy:
    """Return the policy of a file that sees what a config shows.

    Raises:
        UserError: the file is no policy, or sees something else.
    """
    return load_policy(path, observation_schema(config.observation))


def held_out_workloads(config: TrainingConfig, seeds: Iterable[int]) -> Workloads:
    """Return workloads of the comparison."""
    return {seed: evaluation_table(config, seed) for seed in seeds}


@dataclass(frozen=True)
class _Job:
    """One scheduler on held-out workloads, on one engine; ``policy`` is the file of one, if any."""

    config: TrainingConfig
    engine: str
    scheduler: str
    policy: Path | None
    seeds: tuple[int, ...]

    @property
    def takes_long(self) -> bool:
        """Whether a workload takes seconds; to others, policies included, it is milliseconds."""
        return self.engine == "vidur" or self.scheduler in PLANNERS


def _runs_of(job: _Job) -> list[RunResult]:
    config, name = job.config, job.scheduler
    policy = None if job.policy is None else read_policy(config, job.policy)
    workloads = held_out_workloads(config, job.seeds)
    if job.engine == "vidur":
        return runs_on_vidur(config, name, policy, workloads)
    return runs_on_engine(config, engine_cluster(config), name, policy, workloads)


def _finished(jobs: Sequence[_Job], num_workers: int) -> Iterator[list[RunResult]]:
    """Yield runs as they are there: first of the quick jobs, then of the long ones, spread out."""
    yield from (_runs_of(job) for job in jobs if not job.takes_long)
    spread = [replace(job, seeds=(seed,)) for job in jobs if job.takes_long for seed in job.seeds]
    if spread:
        yield from (runs for _, runs in map_unordered(_runs_of, spread, num_workers))


def compared_runs(
    config: TrainingConfig,
    policies: Mapping[str, Path],
    engine: str,
    seeds: Sequence[int],
    report: Callable[[Sequence[RunResult], int, int], None],
) -> list[RunResult]:
    """Run all heuristics of the config and the given policies on held-out workloads.

    Vidur's runs and those of planners are spread over ``parallel_training.num_workers`` processes.

    Args:
        policies: policy file per name under which it appears in the comparison.
        engine: what simulates, "compiled" or "vidur".
        seeds: which workloads.
        report: called with all runs of a scheduler as soon as there are all, how many schedulers
            are done, and how many there are.

    Returns the runs of one scheduler after the other, in the order of ``seeds``.

    Raises:
        UserError: a policy cannot be used.
    """
    names = (*policies, *config.evaluation.schedulers)
    jobs = [_Job(config, engine, name, policies.get(name), tuple(seeds)) for name in names]
    runs: dict[str, dict[int, RunResult]] = {name: {} for name in names}
    done = 0
    for some in _finished(jobs, config.parallel_training.num_workers):
        of_scheduler = runs[some[0].scheduler]
        of_scheduler.update((run.seed, run) for run in some)
        if len(of_scheduler) == len(seeds):
            done += 1
            report(list(of_scheduler.values()), done, len(names))
    return [runs[name][seed] for name in names for seed in seeds]
