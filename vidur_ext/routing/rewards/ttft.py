"""Minus the time integral of requests that wait for their first token.

Summed over an episode it is minus the sum of the times to first token, exactly.
"""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.components import RewardRule, position
from vidur_ext.routing.view import Memory, Sight

_TTFT = position("ttft")


@compiled
def reward(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    return float(components[_TTFT])
