"""Minus the request-seconds and `lookahead.ttft_weight` times those without a first token.

Summed over an episode it is minus the sum of end-to-end latencies and of weighted times to first
token, exactly: what look-ahead makes small.
"""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.components import RewardRule, position
from vidur_ext.routing.view import Memory, Sight

_LATENCY, _TTFT = position("latency"), position("ttft")


@compiled
def reward(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    return float(components[_LATENCY] + rule.ttft_weight * components[_TTFT])
