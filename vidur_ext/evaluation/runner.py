"""Running every scheduler over the same held-out workloads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.policy_file import load_policy
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.env.schema import observation_schema
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.parallel import map_unordered
from vidur_ext.scheduler.global_scheduler.heuristics import ROUTING_HEURISTICS
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.simulation.vidur_simulation import VidurSimulation, finished_run
from vidur_ext.workload.streams import evaluation_table


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
    flags = config.to_cli_flags(kind, metrics_dir=job.metrics_dir)
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
