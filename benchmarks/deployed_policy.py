"""What a decision of the deployed policy costs a gateway: NumPy beside torch, one at a time.

The default network and features, on one thread. Snapshots are of random clusters; how long a
decision takes does not depend on what is in them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from harness import run_benchmark

from ppo_scheduler.deployed import RoutingPolicy, Snapshot
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy import routing_policy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.gateway.export import export_for_gateway
from vidur_ext.gateway.router import ClusterRouter
from vidur_ext.gateway.trained import Trained
from vidur_ext.routing.features import observation_schema
from vidur_ext.routing.view import ClusterSnapshot, Completion, Quantity, QueuedRequest

_REPLICAS = (4, 16, 32)
_BLOCK = 20
"""Decisions timed together: less than a millisecond, so that other work seldom comes in between."""
_PROMPT_TOKENS = 500
_COMPLETED = (Completion(e2e_s=4.0, ttft_s=0.2, tbt_s=0.03, output_tokens=120),)

State = TypeVar("State")


def measure(quick: bool) -> dict[str, float]:
    """Return medians over blocks of decisions [us]."""
    torch.set_num_threads(1)
    blocks = 100 if quick else 1000
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for replicas in _REPLICAS:
            file = Path(folder) / f"{replicas}.json"
            trained = _export(replicas, file)
            figures.update(_costs(replicas, trained, file, blocks))
    return figures


def _export(replicas: int, file: Path) -> routing_policy.RoutingPolicy:
    """Write the file of a policy with random weights that has seen random features."""
    cluster = {"num_replicas": replicas}
    config = TrainingConfig.model_validate({"cluster": cluster})
    schema = observation_schema(config.observation)
    policy = routing_policy.RoutingPolicy(
        schema, config.actor_critic_architecture, config.observation.clip
    )
    policy.initialize(torch_seed=0)
    rng = np.random.default_rng(0)
    policy.collect(
        Observation(
            rng.exponential(100.0, (100, replicas, len(schema.replica))),
            rng.exponential(100.0, (100, len(schema.context))),
            np.empty((100, 0)),
        )
    )
    export_for_gateway(Trained(policy.state_dict(), file, None), config, file)
    return policy


def _costs(
    replicas: int, trained: routing_policy.RoutingPolicy, file: Path, blocks: int
) -> dict[str, float]:
    policy = RoutingPolicy.load(file)
    watching, router = ClusterRouter.load(file), ClusterRouter.load(file)
    clusters = [_cluster(replicas, now) for now in range(_BLOCK * blocks)]
    snapshots = [watching.see(cluster, _PROMPT_TOKENS, _COMPLETED) for cluster in clusters]

    def torch_route(snapshot: Snapshot) -> object:
        unseen = np.empty((1, 0))
        return trained.greedy(Observation(snapshot.replicas[None], snapshot.context[None], unseen))

    return {
        f"us_per_decision_{replicas}": _median_us(policy.route, snapshots, blocks),
        f"us_with_features_{replicas}": _median_us(
            lambda cluster: router.route(cluster, _PROMPT_TOKENS, _COMPLETED), clusters, blocks
        ),
        f"us_torch_{replicas}": _median_us(torch_route, snapshots, blocks),
    }


def _cluster(replicas: int, now: int) -> ClusterSnapshot:
    rng = np.random.default_rng(now)
    table = rng.integers(0, 100, (len(Quantity), replicas)).astype(np.float64)
    table[Quantity.KV_BLOCKS_TOTAL] = 10_000.0
    table[Quantity.BATCH_CAPACITY] = 128.0
    table[Quantity.REMAINING_OUTPUT_TOKENS] = 0.0
    queue = (QueuedRequest(0.2, 700), QueuedRequest(0.1, 300))
    return ClusterSnapshot(float(now), table, (queue,) * replicas)


def _median_us(decide: Callable[[State], object], states: Sequence[State], blocks: int) -> float:
    """Return the median over blocks of the mean time of a decision [us]."""
    times = []
    for block in range(blocks):
        chosen = states[block * _BLOCK : (block + 1) * _BLOCK]
        started = time.perf_counter()
        for state in chosen:
            decide(state)
        times.append((time.perf_counter() - started) / _BLOCK)
    return 1e6 * statistics.median(times)


if __name__ == "__main__":
    run_benchmark("Cost of a decision of the deployed policy", measure)
