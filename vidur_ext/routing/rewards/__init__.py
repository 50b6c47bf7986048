"""The reward of an interval between two decisions: one mode is one file, called by its name.

A file's docstring says what is rewarded. It defines one compiled function,
``reward(rule, sight, memory, components) -> float``. ``components`` holds those of the interval
(``position`` says where); a mode with a component of its own writes it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from ppo_scheduler.compiled import compiled
from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.observation import Floats
from vidur_ext.config.sections import REWARD_MODES
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.routing.components import RewardRule, write_components
from vidur_ext.routing.view import Memory, Sight

Reward = Callable[[RewardRule, Sight, Memory, Floats], float]

MODES: dict[str, Reward] = {
    name: import_module(f"{__name__}.{name}").reward for name in REWARD_MODES
}


def reward_rule(config: RouterConfig, scales: StageScales) -> RewardRule:
    """Return the rule of a config in a stage of the curriculum."""
    section = config.reward_config
    return RewardRule(
        mode=list(MODES).index(section.mode),
        ttft_weight=config.lookahead.ttft_weight,
        slo_ttft_s=section.slo_ttft_s,
        slo_tbt_s=section.slo_tbt_s,
        throughput_weight=section.throughput_weight,
        latency_weight=section.latency_weight,
        imbalance_weight=section.imbalance_weight,
        threshold_s=section.latency_threshold_s * scales.latency_threshold_scale,
        penalty=section.threshold_penalty * scales.penalty_scale,
        ema_alpha=section.ema_alpha,
    )


def _one_of(rewards: Sequence[Reward], number: int = 0) -> Reward:
    """Return the compiled function that is of the rule's mode, from ``number`` on."""
    first = rewards[number]
    if number == len(rewards) - 1:
        return first
    others = _one_of(rewards, number + 1)

    @compiled
    def reward(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
        if rule.mode == number:
            return first(rule, sight, memory, components)
        return others(rule, sight, memory, components)

    return reward


_of_mode = _one_of(list(MODES.values()))


@compiled
def reward_of(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    """Return the reward of an interval; write its components [len(COMPONENTS)]."""
    write_components(rule, sight, memory, components)
    return _of_mode(rule, sight, memory, components)
