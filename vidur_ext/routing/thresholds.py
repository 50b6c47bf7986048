"""What heuristics are told beside what they see, as compiled code reads it: by name.

Every class but the last has the keys of its section in ``config.routers``.
"""

from __future__ import annotations

from typing import NamedTuple

from vidur_ext.config.routers import RoutersSection


class BoundedHash(NamedTuple):
    load_factor: float


class CacheAware(NamedTuple):
    match_share: float
    imbalance_requests: float
    imbalance_ratio: float


class LlmD(NamedTuple):
    prefix_weight: float
    queue_weight: float
    kv_weight: float


class LlmDAffinity(NamedTuple):
    match_share: float
    ttft_penalty_s: float


class DynamoKv(NamedTuple):
    prefill_weight: float


class AibrixPrefix(NamedTuple):
    imbalance_requests: float
    deviations: float


class Preble(NamedTuple):
    match_share: float


class StickyUncached(NamedTuple):
    tolerance: float


class PrefixPredictedLatency(NamedTuple):
    strict_share: float
    loose_share: float
    ttft_penalty_s: float
    ttft_weight: float
    tpot_weight: float


class Thresholds(NamedTuple):
    """What each heuristic is told, under its name, and the tokens of a KV block."""

    bounded_hash: BoundedHash
    cache_aware: CacheAware
    llm_d: LlmD
    llm_d_affinity: LlmDAffinity
    dynamo_kv: DynamoKv
    aibrix_prefix: AibrixPrefix
    preble: Preble
    sticky_uncached: StickyUncached
    prefix_predicted_latency: PrefixPredictedLatency
    block_tokens: float


def thresholds_of(routers: RoutersSection, block_size: int) -> Thresholds:
    """Return what the heuristics are told on a cluster with blocks of ``block_size`` tokens."""
    return Thresholds(
        bounded_hash=BoundedHash(**routers.bounded_hash.model_dump()),
        cache_aware=CacheAware(**routers.cache_aware.model_dump()),
        llm_d=LlmD(**routers.llm_d.model_dump()),
        llm_d_affinity=LlmDAffinity(**routers.llm_d_affinity.model_dump()),
        dynamo_kv=DynamoKv(**routers.dynamo_kv.model_dump()),
        aibrix_prefix=AibrixPrefix(**routers.aibrix_prefix.model_dump()),
        preble=Preble(**routers.preble.model_dump()),
        sticky_uncached=StickyUncached(**routers.sticky_uncached.model_dump()),
        prefix_predicted_latency=PrefixPredictedLatency(
            **routers.prefix_predicted_latency.model_dump()
        ),
        block_tokens=float(block_size),
    )
