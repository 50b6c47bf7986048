"""Compiled: what is logged of every interval between two decisions, and rewards are made of.

A component is one row of ``COMPONENTS``; all of them are computed in every mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.view import Elapsed, Memory, Quantity, Remembered, Sight


class RewardRule(NamedTuple):
    """What the reward is made of; see ``RewardSection``. The penalty's scales are applied.

    mode: number of the file in ``rewards``.
    """

    mode: int
    ttft_weight: float
    slo_ttft_s: float
    slo_tbt_s: float
    throughput_weight: float
    latency_weight: float
    imbalance_weight: float
    threshold_s: float
    penalty: float
    ema_alpha: float


ComponentFormula = Callable[[RewardRule, Sight, Memory], float]


class Component(NamedTuple):
    """``compute`` is a compiled ``ComponentFormula``."""

    name: str
    unit: str
    meaning: str
    compute: ComponentFormula


@compiled
def _latency(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    return float(-sight.interval[Elapsed.REQUEST_SECONDS])


@compiled
def _ttft(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    return float(-sight.interval[Elapsed.UNANSWERED_SECONDS])


@compiled
def _slo(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    return float(2.0 * sight.interval[Elapsed.IN_TIME] - sight.interval[Elapsed.COMPLETIONS])


@compiled
def _throughput(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    return float(rule.throughput_weight * sight.interval[Elapsed.COMPLETIONS])


@compiled
def _mean_latency(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    return float(-rule.latency_weight * memory.numbers[Remembered.MEAN_LATENCY_S])


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
def _imbalance(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    return -rule.imbalance_weight * _variation(sight.table)


@compiled
def _threshold_penalty(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    late = memory.numbers[Remembered.MEAN_LATENCY_S] > rule.threshold_s
    return -(rule.penalty if late else 0.0)


@compiled
def _score(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    return (
        _throughput(rule, sight, memory)
        + _mean_latency(rule, sight, memory)
        + _imbalance(rule, sight, memory)
        + _threshold_penalty(rule, sight, memory)
    )


@compiled
def _change(rule: RewardRule, sight: Sight, memory: Memory) -> float:
    previous = memory.numbers[Remembered.PREVIOUS_SCORE]
    return 0.0 if np.isnan(previous) else _score(rule, sight, memory) - previous


COMPONENTS = (
    Component("latency", "request s", "minus the time integral of those in the system", _latency),
    Component("ttft", "request s", "minus that of requests without a first token", _ttft),
    Component("slo", "requests", "completed within both objectives, minus the others", _slo),
    Component("throughput", "", "weighted completions", _throughput),
    Component("mean_latency", "", "minus the weighted latest mean latency", _mean_latency),
    Component("imbalance", "", "minus the weighted variation of outstanding requests", _imbalance),
    Component(
        "threshold_penalty",
        "",
        "minus the penalty while the mean latency is above its threshold",
        _threshold_penalty,
    ),
    Component("change", "", "of the sum of the four before since the last decision", _change),
)
"""Modes find theirs by ``position``."""

COMPONENT_NAMES = tuple(component.name for component in COMPONENTS)


def position(name: str) -> int:
    """Return where a component stands among those of an interval."""
    return COMPONENT_NAMES.index(name)


def _each(components: Sequence[Component]) -> Callable[..., None]:
    """Return a compiled function that writes the components; it cannot loop over functions."""
    compute, place = components[-1].compute, len(components) - 1
    before = _each(components[:-1]) if place else None

    if before is None:

        @compiled
        def write(rule: RewardRule, sight: Sight, memory: Memory, out: Floats) -> None:
            out[place] = compute(rule, sight, memory)

    else:

        @compiled
        def write(rule: RewardRule, sight: Sight, memory: Memory, out: Floats) -> None:
            before(rule, sight, memory, out)
            out[place] = compute(rule, sight, memory)

    return write


_write = _each(COMPONENTS)


@compiled
def write_components(rule: RewardRule, sight: Sight, memory: Memory, out: Floats) -> None:
    """Write the components [len(COMPONENTS)] of an interval, and remember it."""
    interval, numbers = sight.interval, memory.numbers
    completions = interval[Elapsed.COMPLETIONS]
    if completions > 0.0:
        numbers[Remembered.MEAN_LATENCY_S] = interval[Elapsed.E2E_SUM_S] / completions
    _write(rule, sight, memory, out)
    numbers[Remembered.PREVIOUS_SCORE] = _score(rule, sight, memory)
