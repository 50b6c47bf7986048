"""What a run would end in after hours, said before its first step: limits, lengths, memory."""

from __future__ import annotations

import os
import resource

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.team import check_launched
from vidur_ext.vidur.build import largest_prefill, simulation_config
from vidur_ext.vidur.cluster import check_profiles
from vidur_ext.vidur.limits import check_requests
from vidur_ext.workload.run_workloads import (
    evaluation_requests,
    longest_request,
    validation_table,
    workload_stream,
)

_REQUEST_BYTES = 160
"""Of a simulated request: its columns, its times, and what a router saw of it."""
_TABLE_ENTRY_BYTES = 300
"""Of an execution time: Vidur's predictor is handed keys and values as Python's numbers."""
_KV_STEP, _CHUNK_STEP = 64, 32
_COPIES = 5
"""Of a decision's features, in float32: recorded, joined, normalized, and as float64."""


def check_feasible(config: TrainingConfig) -> None:
    """Check what no key shows by itself; nothing is made but Vidur's own copy of its hub's files.

    Raises:
        UserError: a launcher has started processes that it cannot use, this machine has not the
            memory that a number asks for, the cluster cannot serve the longest request, a trace
            cannot be used or is too short, requests wait for answers where that cannot be
            simulated, or profiles cannot be had.
    """
    check_launched(config)
    _check_memory(config)
    _check_closed_loops(config)
    built = simulation_config(config, "round_robin")
    check_requests(built, longest_request(config.workload))
    check_profiles(built)
    if config.evaluation.enabled:
        evaluation_requests(config)
    if config.checkpointing.validation_freq is not None:
        validation_table(config, 0)


def _check_closed_loops(config: TrainingConfig) -> None:
    """Check what cannot be done where turns wait for answers."""
    stream = workload_stream(config, Purpose.WORKLOAD)
    if not stream.window(0, config.training.episode_requests).waits:
        return
    if config.terminal_value.enabled:
        raise UserError(
            "terminal_value.enabled lets simulations branch, and turns of these sessions wait for "
            "answers that differ between branches: set it to false, or choose requests that "
            "arrive at times of their own"
        )
    evaluation = config.evaluation
    on_vidur = config.simulation.engine == "vidur" or (
        evaluation.enabled and evaluation.vidur_workloads > 0
    )
    observed = config.observation
    if (observed.signal_delay_s > 0.0 or observed.kv_event_delay_s > 0.0) and on_vidur:
        raise UserError(
            "turns of these sessions wait for the answers before them, and Vidur must know "
            "beforehand when requests arrive to which signals come late: set simulation.engine to "
            '"compiled" and evaluation.vidur_workloads to 0, or observation.signal_delay_s and '
            "observation.kv_event_delay_s to 0"
        )


def _check_memory(config: TrainingConfig) -> None:
    available = memory_bytes()
    for keys, needed in memory_needs(config).items():
        if needed > available:
            raise UserError(
                f"{keys} ask for {needed / 1e9:.3g} GB of memory, this machine has "
                f"{available / 1e9:.3g} GB: lower one of them"
            )


def memory_bytes() -> int:
    """Return the memory that a process can have here at most."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if allowed == resource.RLIM_INFINITY else min(physical, allowed)


def memory_needs(config: TrainingConfig) -> dict[str, float]:
    """Return about how much memory [bytes] each large part of a run needs, by the keys it follows
    from."""
    schema = observation_schema(config.observation)
    cluster, warm, saving = config.cluster, config.warmstart, config.checkpointing
    replicas, envs = cluster.num_replicas, config.parallel_training.num_envs
    decision = 4 * (replicas * (len(schema.replica) + 2) + len(schema.context) + 16)
    longest = config.workload.max_tokens / _KV_STEP
    chunk = min(largest_prefill(config), config.workload.max_tokens) / _CHUNK_STEP
    if warm.method == "costs":
        kept, simulated = warm.rounds * warm.labels_per_round, warm.labels_per_round
        learned = "warmstart.rounds and labels_per_round"
        simulated = int(simulated / warm.label_share)
    else:
        kept = len(warm.teachers) * len(warm.load_levels) * warm.demo_requests
        learned, simulated = "warmstart.teachers, load_levels and demo_requests", warm.demo_requests
    branching = config.terminal_value
    requests = config.training.episode_requests + branching.horizon * replicas
    slots = 2 * 8 * replicas * cluster.batch_size_cap
    return {
        "cluster.batch_size_cap, chunk_size, max_tokens_in_batch and workload.max_tokens": (
            _TABLE_ENTRY_BYTES * longest * (cluster.batch_size_cap + chunk)
        ),
        "ppo_config.rollout_len, cluster.num_replicas and observation.queue_slots": (
            _COPIES * decision * config.ppo_config.rollout_len
        ),
        "parallel_training.num_envs, training.episode_requests and cluster.batch_size_cap": (
            envs * (slots + _REQUEST_BYTES * config.training.episode_requests)
        ),
        f"{learned}, cluster.num_replicas and observation.queue_slots": (
            (_COPIES * decision * kept + _REQUEST_BYTES * simulated) * warm.enabled
        ),
        "terminal_value.decisions, choices and horizon, and parallel_training.num_envs": (
            _COPIES * decision * branching.decisions
            + envs * branching.choices * (slots + _REQUEST_BYTES * requests)
        )
        * config.corrects_costs,
        "checkpointing.validation_seeds and validation_requests": (
            saving.validation_seeds * (slots + _REQUEST_BYTES * saving.validation_requests)
        )
        * (saving.validation_freq is not None),
        "evaluation.num_seeds, requests and schedulers": (
            config.evaluation.num_seeds
            * (slots + _REQUEST_BYTES * config.evaluation.requests)
            * (len(config.evaluation.schedulers) + 2)
            * config.evaluation.enabled
        ),
    }
