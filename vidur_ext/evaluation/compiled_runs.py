"""Every scheduler over the held-out workloads once more, on the compiled engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.policy.policy_file import load_policy
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.env.schema import observation_schema
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.evaluation.runner import is_oracle
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.streams import evaluation_table


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
        flags = config.to_cli_flags("ppo_modular", metrics_dir=metrics_dir)
        policy = load_policy(file, observation_schema(config.observation))
        runs += policy_runs(parse_simulation_config(flags), name, policy, tables)
    for name in config.evaluation.schedulers:
        parsed = parse_simulation_config(config.to_cli_flags(name, metrics_dir=metrics_dir))
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
    return RunResult(
        scheduler=name,
        seed=seed,
        num_replicas=len(simulation.state.replicas),
        arrived_at=table.arrived_at,
        scheduled_at=simulation.scheduled_at,
        prefill_completed_at=simulation.prefill_completed_at,
        completed_at=simulation.completed_at,
        prefill_tokens=table.prefill_tokens,
        decode_tokens=table.decode_tokens,
        replica=simulation.routing,
        uses_output_lengths=is_oracle(name),
        decisions_per_second=len(table) / elapsed,
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
        RunResult(
            scheduler=name,
            seed=seed,
            num_replicas=envs.num_replicas,
            arrived_at=table.arrived_at,
            scheduled_at=envs.scheduled_at[seed],
            prefill_completed_at=envs.prefill_completed_at[seed],
            completed_at=envs.completed_at[seed],
            prefill_tokens=table.prefill_tokens,
            decode_tokens=table.decode_tokens,
            replica=envs.routing[seed],
            uses_output_lengths=oracle,
            decisions_per_second=len(table) * len(tables) / elapsed,
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
