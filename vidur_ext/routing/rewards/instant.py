"""The score: throughput - latency - imbalance - threshold penalty, each with its weight."""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.components import RewardRule, position
from vidur_ext.routing.view import Memory, Sight

_THROUGHPUT, _MEAN_LATENCY = position("throughput"), position("mean_latency")
_IMBALANCE, _PENALTY = position("imbalance"), position("threshold_penalty")


@compiled
def reward(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    return float(
        components[_THROUGHPUT]
        + components[_MEAN_LATENCY]
        + components[_IMBALANCE]
        + components[_PENALTY]
    )
