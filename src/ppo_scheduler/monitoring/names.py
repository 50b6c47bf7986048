"""The fixed names of all scalars, in the order of the CSV's columns."""

from __future__ import annotations

from collections.abc import Sequence

_TRAINING = (
    "PolicyLoss",
    "ValueLoss",
    "Entropy",
    "ApproxKL",
    "ClipFraction",
    "ExplainedVariance",
    "GradientNorm",
    "LearningRate",
    "ReferenceKL",
    "ReferenceKLCoef",
    "EntropyCoef",
    "ActionBalance",
    "MinibatchSize",
    "EpochsDone",
    "SkippedSteps",
    "RewardScale",
)
_ROLLOUT = (
    "RewardMean",
    "RewardStd",
    "RewardMin",
    "RewardMax",
    "ValueMean",
    "ReturnMean",
    "AdvantageStd",
)
_CONTROL = ("Temperature", "TemperaturePulses", "CollapseInterventions")
_CURRICULUM = ("Stage", "QpsScale", "LatencyThresholdScale", "PenaltyScale")
_VALIDATION = ("MeanLatency",)
_SPEED = ("DecisionsPerSecond", "UpdateSeconds", "CheckpointSeconds")
TAIL_PERCENTILES = {"latency": (50, 90, 95, 99), "ttft": (50, 90, 99)}


def scalar_names(num_replicas: int, reward_components: Sequence[str]) -> tuple[str, ...]:
    """Return every scalar that a training of this shape records."""
    tail = [f"{what}_p{p}" for what, ranks in TAIL_PERCENTILES.items() for p in ranks]
    groups: dict[str, Sequence[str]] = {
        "Training": _TRAINING,
        "Rollout": _ROLLOUT,
        "Actions": [f"Replica_{index}" for index in range(num_replicas)],
        "Reward": reward_components,
        "tail_latency": tail,
        "Control": _CONTROL,
        "curriculum": _CURRICULUM,
        "Validation": _VALIDATION,
        "Speed": _SPEED,
    }
    return tuple(f"{group}/{name}" for group, names in groups.items() for name in names)
