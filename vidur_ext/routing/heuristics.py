"""Routing heuristics as pure choices on a snapshot; the baselines and the teachers.

Ties are broken at random with the generator given, never towards replica 0: breaking them towards
one replica makes all routers of a fleet herd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidur_ext.routing.estimator import LatencyEstimator
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot

VLLM_WAITING_WEIGHT = 4.0
"""vLLM's data-parallel coordinator scores an engine by 4 * waiting + running requests."""

KV_TOKEN_WEIGHT = 0.1
"""least_tokens: work of a token held in the KV cache relative to a prompt token to be processed."""


@dataclass(frozen=True)
class RoutingContext:
    """What a heuristic may use besides the snapshot."""

    rng: np.random.Generator
    estimator: LatencyEstimator


Choice = Callable[[ClusterSnapshot, ArrivingRequest, RoutingContext], int]


@dataclass(frozen=True)
class Heuristic:
    """A named routing rule. ``uses_output_lengths`` marks an oracle."""

    name: str
    choose: Choice
    uses_output_lengths: bool = False


def lightest(score: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Return the index of the smallest score, ties broken uniformly."""
    candidates = np.flatnonzero(score == score.min())
    return int(candidates[0] if len(candidates) == 1 else rng.choice(candidates))


def least_outstanding(
    snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext
) -> int:
    """Fewest requests, waiting or running."""
    return lightest(snapshot.outstanding, context.rng)


def power_of_two(
    snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext
) -> int:
    """The less loaded of two replicas drawn at random (Mitzenmacher 2001)."""
    if snapshot.num_replicas == 1:
        return 0
    pair = context.rng.choice(snapshot.num_replicas, size=2, replace=False)
    return int(pair[lightest(snapshot.outstanding[pair], context.rng)])


def least_tokens(
    snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext
) -> int:
    """Fewest prompt tokens to be processed plus weighted tokens in the KV cache."""
    held = snapshot.row("context_tokens")
    return lightest(snapshot.row("pending_prefill_tokens") + KV_TOKEN_WEIGHT * held, context.rng)


def least_kv(snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext) -> int:
    """Smallest share of KV blocks in use."""
    return lightest(snapshot.kv_used_fraction, context.rng)


def vllm_dp(snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext) -> int:
    """The rule of vLLM's internal data-parallel load balancer."""
    score = VLLM_WAITING_WEIGHT * snapshot.row("waiting") + snapshot.row("running")
    return lightest(score, context.rng)


def min_predicted_latency(
    snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext
) -> int:
    """Smallest predicted latency of this request; output lengths are expected, not known."""
    return lightest(context.estimator.latency_s(snapshot, request.prompt_tokens), context.rng)


def oracle_work(
    snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext
) -> int:
    """Least remaining work in seconds, true output lengths known."""
    return lightest(context.estimator.remaining_work_s(snapshot), context.rng)


def always_first(
    snapshot: ClusterSnapshot, request: ArrivingRequest, context: RoutingContext
) -> int:
    """Everything to replica 0: a control that must lose."""
    return 0


ROUTING_HEURISTICS = {
    heuristic.name: heuristic
    for heuristic in (
        Heuristic("least_outstanding", least_outstanding),
        Heuristic("power_of_two", power_of_two),
        Heuristic("least_tokens", least_tokens),
        Heuristic("least_kv", least_kv),
        Heuristic("vllm_dp", vllm_dp),
        Heuristic("min_predicted_latency", min_predicted_latency),
        Heuristic("oracle_work", oracle_work, uses_output_lengths=True),
        Heuristic("always_first", always_first),
    )
}
"""The heuristics this plug-in adds; ``random``, ``round_robin`` and ``lor`` are Vidur's own."""
