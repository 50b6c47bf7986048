"""Making Vidur's runs again on the compiled engine, and finding out why one differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.policy.policy_file import load_policy
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.env.schema import observation_schema
from vidur_ext.evaluation.compiled_runs import compiled_runs, routing_environments
from vidur_ext.evaluation.engines import EngineComparison, first_routed_elsewhere
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.workload.request_table import RequestTable


def check_engine(
    config: TrainingConfig,
    policies: Mapping[str, Path],
    metrics_dir: str,
    vidur: Sequence[RunResult],
) -> EngineComparison:
    """Return what the compiled engine makes of all that Vidur ran.

    Args:
        policies: policy file per name, as for ``run_comparison``, which made ``vidur``.

    Raises:
        UserError: the cluster is one that only Vidur simulates, or a policy cannot be used.
    """
    compiled = compiled_runs(config, policies, metrics_dir)
    made_again = {(run.scheduler, run.seed): run for run in compiled}
    gaps: dict[tuple[str, int], float] = {}
    for run in vidur:
        key = run.scheduler, run.seed
        if run.scheduler not in policies or first_routed_elsewhere(run, made_again[key]) is None:
            continue
        flags = config.to_cli_flags("ppo_modular", metrics_dir=metrics_dir)
        policy = load_policy(policies[run.scheduler], observation_schema(config.observation))
        gaps[key] = preference_gap(parse_simulation_config(flags), policy, run, made_again[key])
    return EngineComparison.from_runs(
        vidur, compiled, gaps, warmup_fraction=config.evaluation.warmup_fraction
    )


def preference_gap(
    simulation_config: Any, policy: RoutingPolicy, vidur: RunResult, compiled: RunResult
) -> float:
    """Return how much the policy prefers one engine's choice where the choices first differ.

    That is the difference of the two replicas' logits, for this one workload alone, as on Vidur.
    """
    first = first_routed_elsewhere(vidur, compiled)
    assert first is not None, "both runs have the same routing"
    envs = routing_environments(simulation_config, 1)
    envs.begin([RequestTable(vidur.arrived_at, vidur.prefill_tokens, vidur.decode_tokens)])
    for replica in vidur.replica[:first]:
        envs.step(replica.reshape(1))
    logits, _ = policy.evaluate(policy.normalise(envs.observation))
    return abs(float(logits[0, vidur.replica[first]] - logits[0, compiled.replica[first]]))
