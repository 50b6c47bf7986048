"""Type keys that the plug-in adds to Vidur's registries; far above Vidur's own."""

from __future__ import annotations

from vidur.types import BaseIntEnum


class PredictorType(BaseIntEnum):
    """Values start far above Vidur's own, with which they share a registry."""

    ANALYTIC = 100
    LOCAL_RANDOM_FORREST = 101
    LOCAL_LINEAR_REGRESSION = 102


class RoutingSchedulerType(BaseIntEnum):
    """Values start far above Vidur's own, with which they share a registry."""

    PPO_MODULAR = 100
    LEAST_OUTSTANDING = 101
    POWER_OF_TWO = 102
    LEAST_TOKENS = 103
    LEAST_KV = 104
    VLLM_DP = 105
    MIN_PREDICTED_LATENCY = 106
    ORACLE_WORK = 107
    ALWAYS_FIRST = 108
