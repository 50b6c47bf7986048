"""Completions within both objectives minus completions outside."""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.components import RewardRule, position
from vidur_ext.routing.view import Memory, Sight

_SLO = position("slo")


@compiled
def reward(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    return float(components[_SLO])
