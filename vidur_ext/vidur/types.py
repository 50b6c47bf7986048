"""Type keys that the plug-in adds to Vidur's registries; far above Vidur's own."""

from __future__ import annotations

from vidur.types import BaseIntEnum

from vidur_ext.config.sections import HEURISTIC_NAMES, PLANNERS


class PredictorType(BaseIntEnum):
    """Values start far above Vidur's own, with which they share a registry."""

    ANALYTIC = 100
    LOCAL_RANDOM_FORREST = 101
    LOCAL_LINEAR_REGRESSION = 102


class OwnReplicaSchedulerType(BaseIntEnum):
    """Replica schedulers beside Vidur's own, in whose registry they are."""

    VLLM_V1 = 100


RoutingSchedulerType = BaseIntEnum(
    "RoutingSchedulerType",
    [
        (name.upper(), key)
        for key, name in enumerate(("ppo_modular", *HEURISTIC_NAMES, *PLANNERS), 100)
    ],
)
"""The learner, all heuristics and planners; values start far above Vidur's own, of one registry."""
