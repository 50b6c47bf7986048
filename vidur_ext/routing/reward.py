"""The reward of an interval between two decisions, with all its components."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ppo_scheduler.config.learner_sections import RewardSection
from ppo_scheduler.control.curriculum import StageScales
from vidur_ext.compiled import compiled, compiled_entry
from vidur_ext.routing.features import COMPONENTS
from vidur_ext.routing.view import (
    ClusterSnapshot,
    Elapsed,
    Floats,
    Memory,
    Quantity,
    Remembered,
    Sight,
    SinceLastDecision,
    new_memory,
    new_sight,
)

_LATENCY, _TTFT, _SLO, _THROUGHPUT, _MEAN, _IMBALANCE, _PENALTY, _CHANGE = range(len(COMPONENTS))

MODES = ("latency", "ttft", "slo", "delta", "instant", "hybrid")
"""
* latency: minus the time integral of requests in the system. Summed over an episode it is
  minus the sum of end-to-end latencies, exactly (Little's law without the limit).
* ttft: minus the time integral of requests that wait for their first token.
* slo: completions within both objectives minus completions outside.
* delta: change of the score of "instant" since the previous decision.
* instant: the score w_t * throughput - w_l * latency - w_i * imbalance - threshold penalty.
* hybrid: throughput and latency, absolute and against their moving averages, minus imbalance
  and a logistic penalty around the latency threshold.
"""

_M_DELTA, _M_INSTANT, _M_HYBRID = (MODES.index(name) for name in ("delta", "instant", "hybrid"))


class RewardRule(NamedTuple):
    """What the reward is made of; see ``RewardSection``. The penalty's scales are applied."""

    mode: int
    slo_ttft_s: float
    slo_tbt_s: float
    throughput_weight: float
    latency_weight: float
    imbalance_weight: float
    threshold_s: float
    penalty: float
    ema_alpha: float


def reward_rule(section: RewardSection, scales: StageScales) -> RewardRule:
    """Return the rule of a config in a stage of the curriculum."""
    return RewardRule(
        mode=MODES.index(section.mode),
        slo_ttft_s=section.slo_ttft_s,
        slo_tbt_s=section.slo_tbt_s,
        throughput_weight=section.throughput_weight,
        latency_weight=section.latency_weight,
        imbalance_weight=section.imbalance_weight,
        threshold_s=section.latency_threshold_s * scales.latency_threshold_scale,
        penalty=section.threshold_penalty * scales.penalty_scale,
        ema_alpha=section.ema_alpha,
    )


@compiled
def _variation(table: Floats) -> float:
    """Return the coefficient of variation of outstanding requests over replicas."""
    replicas = table.shape[1]
    total = 0.0
    for replica in range(replicas):
        total += table[Quantity.WAITING, replica] + table[Quantity.RUNNING, replica]
    if total == 0.0:
        return 0.0
    mean = total / replicas
    squares = 0.0
    for replica in range(replicas):
        squares += (table[Quantity.WAITING, replica] + table[Quantity.RUNNING, replica] - mean) ** 2
    return math.sqrt(squares / replicas) / mean


@compiled
def _against_averages(
    rule: RewardRule, numbers: Floats, throughput: float, latency: float
) -> float:
    """Return how throughput and latency compare with their averages, which then follow."""
    change = (throughput - numbers[Remembered.THROUGHPUT_EMA]) - (
        latency - numbers[Remembered.LATENCY_EMA]
    )
    numbers[Remembered.THROUGHPUT_EMA] += rule.ema_alpha * (
        throughput - numbers[Remembered.THROUGHPUT_EMA]
    )
    numbers[Remembered.LATENCY_EMA] += rule.ema_alpha * (latency - numbers[Remembered.LATENCY_EMA])
    return float(change)


@compiled
def reward_of(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    """Return the reward of an interval; write its components in the order of ``COMPONENTS``."""
    numbers, interval = memory.numbers, sight.interval
    completions = interval[Elapsed.COMPLETIONS]
    if completions > 0.0:
        numbers[Remembered.MEAN_LATENCY_S] = interval[Elapsed.E2E_SUM_S] / completions
    mean_latency = numbers[Remembered.MEAN_LATENCY_S]
    throughput = rule.throughput_weight * completions
    latency = rule.latency_weight * mean_latency
    imbalance = rule.imbalance_weight * _variation(sight.table)
    penalty = rule.penalty if mean_latency > rule.threshold_s else 0.0
    score = throughput - latency - imbalance - penalty
    change = (
        0.0
        if np.isnan(numbers[Remembered.PREVIOUS_SCORE])
        else score - numbers[Remembered.PREVIOUS_SCORE]
    )
    numbers[Remembered.PREVIOUS_SCORE] = score
    if rule.mode == _M_HYBRID:
        relative = mean_latency / rule.threshold_s - 1.0
        penalty = rule.penalty / (1.0 + math.exp(-10.0 * min(relative, 50.0)))
        change = _against_averages(rule, numbers, throughput, latency)
    components[_LATENCY] = -interval[Elapsed.REQUEST_SECONDS]
    components[_TTFT] = -interval[Elapsed.UNANSWERED_SECONDS]
    components[_SLO] = 2.0 * interval[Elapsed.IN_TIME] - completions
    components[_THROUGHPUT] = throughput
    components[_MEAN] = -latency
    components[_IMBALANCE] = -imbalance
    components[_PENALTY] = -penalty
    components[_CHANGE] = change
    if rule.mode < _M_DELTA:
        return float(components[rule.mode])
    if rule.mode == _M_DELTA:
        return float(change)
    total = throughput - latency - imbalance - penalty
    return float(total if rule.mode == _M_INSTANT else total + change)


@compiled_entry
def _reward_of_one(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    return reward_of(rule, sight, memory, components)


def write_interval(
    interval: SinceLastDecision, slo_ttft_s: float, slo_tbt_s: float, out: Floats
) -> None:
    """Write an interval's entries [len(Elapsed)]."""
    completions = interval.completions
    out[Elapsed.DURATION_S] = interval.duration_s
    out[Elapsed.REQUEST_SECONDS] = interval.request_seconds
    out[Elapsed.UNANSWERED_SECONDS] = interval.unanswered_seconds
    out[Elapsed.COMPLETIONS] = len(completions)
    out[Elapsed.IN_TIME] = sum(c.ttft_s <= slo_ttft_s and c.tbt_s <= slo_tbt_s for c in completions)
    out[Elapsed.E2E_SUM_S] = sum(c.e2e_s for c in completions)
    out[Elapsed.TTFT_SUM_S] = sum(c.ttft_s for c in completions)


class RewardFunction:
    """Turns the intervals of one environment into rewards; remembers what a mode needs."""

    def __init__(self, section: RewardSection, num_replicas: int) -> None:
        self._section = section
        self._rule = reward_rule(section, StageScales(0))
        self._sight = new_sight(num_replicas, 0)
        self._memory = new_memory(num_replicas)

    def set_scales(self, scales: StageScales) -> None:
        """Apply a curriculum stage's scales to threshold and penalty."""
        self._rule = reward_rule(self._section, scales)

    def __call__(
        self, snapshot: ClusterSnapshot, interval: SinceLastDecision
    ) -> tuple[float, list[float]]:
        """Return the reward and its components, in the order of ``COMPONENTS``."""
        rule, sight = self._rule, self._sight
        write_interval(interval, rule.slo_ttft_s, rule.slo_tbt_s, sight.interval)
        sight.table[:] = snapshot.table
        components = np.zeros(len(COMPONENTS))
        reward = _reward_of_one(rule, sight, self._memory, components)
        return reward, components.tolist()
