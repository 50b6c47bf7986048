"""Throughput and latency, absolute and against their moving averages, minus imbalance and penalty.

That is the score of ``instant`` with a logistic penalty around the latency threshold,
penalty / (1 + exp(-10 (latency / threshold - 1))), plus
(throughput - its average) - (latency - its average).
"""

from __future__ import annotations

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.components import RewardRule, position
from vidur_ext.routing.rewards import instant
from vidur_ext.routing.view import Memory, Remembered, Sight

_THROUGHPUT, _MEAN_LATENCY = position("throughput"), position("mean_latency")
_PENALTY, _CHANGE = position("threshold_penalty"), position("change")
_STEEPNESS = 10.0

_score = instant.reward


@compiled
def _against_averages(
    rule: RewardRule, numbers: Floats, throughput: float, latency: float
) -> float:
    """Return how throughput and latency compare with their averages, which then follow."""
    more = throughput - numbers[Remembered.THROUGHPUT_EMA]
    slower = latency - numbers[Remembered.LATENCY_EMA]
    numbers[Remembered.THROUGHPUT_EMA] += rule.ema_alpha * more
    numbers[Remembered.LATENCY_EMA] += rule.ema_alpha * slower
    return float(more - slower)


@compiled
def reward(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    relative = memory.numbers[Remembered.MEAN_LATENCY_S] / rule.threshold_s - 1.0
    penalty = rule.penalty / (1.0 + math.exp(-_STEEPNESS * relative))
    components[_PENALTY] = -penalty
    components[_CHANGE] = _against_averages(
        rule, memory.numbers, components[_THROUGHPUT], -components[_MEAN_LATENCY]
    )
    return _score(rule, sight, memory, components) + float(components[_CHANGE])
