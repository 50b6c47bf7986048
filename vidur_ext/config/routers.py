"""What the routers that people run are told: a section for each, called by the heuristic's file.

Defaults are those of their own code; the heuristics' files name it.
"""

from __future__ import annotations

from ppo_scheduler.config.section import Section, key


class BoundedHashSection(Section):
    """`bounded_hash`"""

    load_factor: float = key(
        1.25, "a replica may have this many times the mean of requests", ge=1, le=100
    )


class CacheAwareSection(Section):
    """`cache_aware`, the SGLang gateway's"""

    match_share: float = key(
        0.3, "share of a prompt found on a replica above which it goes there", ge=0, le=1
    )
    imbalance_requests: float = key(
        64.0,
        "loads are out of balance where the most and the fewest requests differ by more",
        unit="requests",
        ge=0,
        le=1e6,
    )
    imbalance_ratio: float = key(
        1.5, "and where, besides, the most are more than this many times the fewest", ge=1, le=1e6
    )


class LlmDSection(Section):
    """`llm_d`, the weights of llm-d's scorers"""

    prefix_weight: float = key(3.0, "of the share of the prompt that is found", ge=0, le=1000)
    queue_weight: float = key(2.0, "of a short queue", ge=0, le=1000)
    kv_weight: float = key(2.0, "of a free KV cache", ge=0, le=1000)


class LlmDAffinitySection(Section):
    """`llm_d_affinity`, llm-d's newer default"""

    match_share: float = key(
        0.8, "share of a prompt found on a replica from which on it is kept to", gt=0, le=1
    )
    ttft_penalty_s: float = key(
        5.0,
        "unless the time to first token is predicted to be so much above that of the others",
        unit="s",
        ge=0,
        le=1e6,
    )


class DynamoKvSection(Section):
    """`dynamo_kv`, NVIDIA Dynamo's KV router"""

    prefill_weight: float = key(
        1.0, "of blocks that are still to be computed, beside those in use", ge=0, le=1000
    )


class AibrixPrefixSection(Section):
    """`aibrix_prefix`, AIBrix's prefix-cache"""

    imbalance_requests: float = key(
        8.0,
        "loads are out of balance where the most and the fewest requests differ by more",
        unit="requests",
        ge=0,
        le=1e6,
    )
    deviations: float = key(
        1.0,
        "standard deviations above the mean of requests up to which a replica is taken",
        ge=0,
        le=1000,
    )


class PrebleSection(Section):
    """`preble`, Preble's E2"""

    match_share: float = key(
        0.5, "share of a prompt found on a replica above which it goes there", ge=0, le=1
    )


class StickyUncachedSection(Section):
    """`sticky_uncached`, the tolerant sticky rule of Vidur's canary"""

    tolerance: float = key(
        2.0,
        "a session stays while its replica's load is at most this many times the least",
        ge=1,
        le=1e6,
    )


class PrefixPredictedLatencySection(Section):
    """`prefix_predicted_latency`, llm-d's predicted latency"""

    strict_share: float = key(
        0.99, "share of a prompt found on a replica from which on it is kept to", gt=0, le=1
    )
    loose_share: float = key(0.8, "the same, where none has the strict share", gt=0, le=1)
    ttft_penalty_s: float = key(
        5.0,
        "unless the time to first token is predicted to be so much above that of the others",
        unit="s",
        ge=0,
        le=1e6,
    )
    ttft_weight: float = key(0.8, "of the predicted time to first token", ge=0, le=1000)
    tpot_weight: float = key(0.2, "of the predicted time per output token", ge=0, le=1000)


class RoutersSection(Section):
    """What the heuristics that can be tuned are told, where they route."""

    bounded_hash: BoundedHashSection = key(BoundedHashSection(), "a hash with bounded loads")
    cache_aware: CacheAwareSection = key(CacheAwareSection(), "the SGLang gateway")
    llm_d: LlmDSection = key(LlmDSection(), "llm-d's scorers")
    llm_d_affinity: LlmDAffinitySection = key(LlmDAffinitySection(), "llm-d's affinity")
    dynamo_kv: DynamoKvSection = key(DynamoKvSection(), "NVIDIA Dynamo")
    aibrix_prefix: AibrixPrefixSection = key(AibrixPrefixSection(), "AIBrix")
    preble: PrebleSection = key(PrebleSection(), "Preble")
    sticky_uncached: StickyUncachedSection = key(StickyUncachedSection(), "Vidur's canary")
    prefix_predicted_latency: PrefixPredictedLatencySection = key(
        PrefixPredictedLatencySection(), "llm-d's predicted latency"
    )
