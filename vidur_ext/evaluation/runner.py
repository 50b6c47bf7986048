"""Running every scheduler over the same held-out workloads, on either engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy, load_policy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.evaluation.run_result import RequestTimes, RunResult
from vidur_ext.processes import map_unordered
from vidur_ext.routing.features import observation_schema
from vidur_ext.routing.heuristics import ROUTING_HEURISTICS
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.vidur.flag_values import cli_flags
from vidur_ext.vidur.flags import parse_simulation_config
from vidur_ext.vidur.simulation import VidurSimulation, finished_run
from vidur_ext.workload.held_out import evaluation_table
from vidur_ext.workload.request_table import RequestTable


@dataclass(frozen=True)
class EvaluationJob:
    """One scheduler on one held-out workload; ``policy`` is the PPO policy's file, if any."""

    config: TrainingConfig
    scheduler: str
    seed: int
    policy: Path | None
    metrics_dir: str


class GreedyRouter:
    """A frozen policy that always takes its most probable replica."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self._policy = policy

    def observe(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest | None
    ) -> None:
        """A policy decides on observations alone."""

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        return self._policy.greedy(observation)


def is_oracle(heuristic: str) -> bool:
    """Return whether a heuristic, one of ours or of Vidur's, knows true output lengths."""
    own = ROUTING_HEURISTICS.get(heuristic)
    return own is not None and own.uses_output_lengths


def evaluate(job: EvaluationJob) -> RunResult:
    """Run one scheduler over one held-out workload."""
    config = job.config
    table = evaluation_table(config, job.seed)
    kind = "ppo_modular" if job.policy is not None else job.scheduler
    flags = cli_flags(config, kind, metrics_dir=job.metrics_dir)
    simulation = VidurSimulation(parse_simulation_config(flags), table)
    oracle = is_oracle(job.scheduler)
    if job.policy is not None:
        policy = load_policy(job.policy, observation_schema(config.observation))
        simulation.scheduler.attach(GreedyRouter(policy))
        oracle = config.observation.output_length == "oracle"
    return finished_run(simulation, job.scheduler, job.seed, oracle)


def run_comparison(
    config: TrainingConfig,
    policies: dict[str, Path],
    metrics_dir: str,
    report: Callable[[RunResult, int, int], None],
) -> list[RunResult]:
    """Run all heuristics of the config and the given policies on every held-out workload.

    Args:
        policies: policy file per name under which it appears in the comparison.
        report: called with each finished run, how many are done, and how many there are.
    """
    jobs: Sequence[EvaluationJob] = [
        EvaluationJob(config, name, seed, policies.get(name), metrics_dir)
        for name in (*policies, *config.evaluation.schedulers)
        for seed in range(config.evaluation.num_seeds)
    ]
    results: list[RunResult | None] = [None] * len(jobs)
    finished = map_unordered(evaluate, jobs, config.parallel_training.num_workers)
    for done, (index, result) in enumerate(finished, start=1):
        results[index] = result
        report(result, done, len(jobs))
    return [result for result in results if result is not None]


def compiled_runs(
    config: TrainingConfig, policies: Mapping[str, Path], metrics_dir: str
) -> list[RunResult]:
    """Return the runs that ``run_comparison`` makes on Vidur, made on the compiled engine.

    They take so little time that they need no other processes.

    Raises:
        UserError: the cluster is one that only Vidur simulates, or a policy cannot be used.
    """
    tables = [evaluation_table(config, seed) for seed in range(config.evaluation.num_seeds)]
    runs: list[RunResult] = []
    for name, file in policies.items():
        flags = cli_flags(config, "ppo_modular", metrics_dir=metrics_dir)
        policy = load_policy(file, observation_schema(config.observation))
        runs += policy_runs(parse_simulation_config(flags), name, policy, tables)
    for name in config.evaluation.schedulers:
        parsed = parse_simulation_config(cli_flags(config, name, metrics_dir=metrics_dir))
        runs += [heuristic_run(parsed, name, seed, table) for seed, table in enumerate(tables)]
    return runs


def heuristic_run(simulation_config: Any, name: str, seed: int, table: RequestTable) -> RunResult:
    """Run the heuristic ``name``, the global scheduler of Vidur's ``simulation_config``.

    Raises:
        UserError: the cluster is one that only Vidur simulates.
    """
    simulation = CompiledSimulation(simulation_config, table)
    fresh = simulation.snapshot()
    # The first run of a process loads machine code, which is not simulation: the second counts.
    simulation.run()
    simulation.restore(fresh)
    started = time.perf_counter()
    simulation.run()
    elapsed = time.perf_counter() - started
    return RunResult.of(
        name,
        seed,
        table,
        RequestTimes(
            simulation.scheduled_at, simulation.prefill_completed_at, simulation.completed_at
        ),
        simulation.routing,
        num_replicas=len(simulation.state.replicas),
        oracle=is_oracle(name),
        speed=len(table) / elapsed,
    )


def policy_runs(
    simulation_config: Any, name: str, policy: RoutingPolicy, tables: Sequence[RequestTable]
) -> list[RunResult]:
    """Run a greedy policy over tables of one length, all side by side.

    Args:
        simulation_config: Vidur's, with the global scheduler ``ppo_modular``.

    Returns one run per table; its speed is that of all together.

    Raises:
        UserError: the cluster is one that only Vidur simulates, or the lengths differ.
    """
    envs = routing_environments(simulation_config, len(tables))
    envs.begin(tables)
    started = time.perf_counter()
    follow_greedily(envs, policy)
    elapsed = time.perf_counter() - started
    oracle = _learner_config(simulation_config).observation.output_length == "oracle"
    return [
        RunResult.of(
            name,
            seed,
            table,
            RequestTimes(
                envs.scheduled_at[seed], envs.prefill_completed_at[seed], envs.completed_at[seed]
            ),
            envs.routing[seed],
            num_replicas=envs.num_replicas,
            oracle=oracle,
            speed=len(table) * len(tables) / elapsed,
        )
        for seed, table in enumerate(tables)
    ]


def routing_environments(simulation_config: Any, num_envs: int) -> RoutingEnvironments:
    """Return environments that show what a config of ``ppo_modular`` says.

    Raises:
        UserError: the cluster is one that only Vidur simulates.
    """
    learner = _learner_config(simulation_config)
    return RoutingEnvironments(
        simulation_config, learner.observation, learner.reward_config, num_envs
    )


def follow_greedily(envs: RoutingEnvironments, policy: RoutingPolicy) -> None:
    """Take the policy's most probable replicas to the end of the episodes that are open."""
    while envs.waiting:
        envs.step(policy.greedy(envs.observation))


def _learner_config(simulation_config: Any) -> Any:
    return simulation_config.cluster_config.global_scheduler_config.to_learner_config()
