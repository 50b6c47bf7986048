"""Minus the time integral of requests in the system.

Summed over an episode it is minus the sum of end-to-end latencies, exactly (Little's law without
the limit).
"""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.components import RewardRule, position
from vidur_ext.routing.view import Memory, Sight

_LATENCY = position("latency")


@compiled
def reward(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    return float(components[_LATENCY])
