"""Compiled: what the policy sees, from what is seen of the cluster.

The order of the columns is that of the schema.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY, ObservationSchema
from vidur_ext.compiled import compiled
from vidur_ext.routing.view import (
    AGE,
    BATCH_CAPACITY,
    COMPLETION_RATE,
    COMPLETIONS,
    CONTEXT,
    DECODING,
    DURATION,
    E2E_SUM,
    EMA,
    GAP,
    GENERATED,
    KV_TOTAL,
    KV_USED,
    LATENCY,
    MEAN_WAIT,
    OLDEST_WAIT,
    PENDING_PREFILL,
    PROCESSED,
    PROMPT,
    REMAINING_OUTPUT,
    REQUEST_OUTPUT,
    REQUEST_PROMPT,
    RESTARTS,
    RUNNING,
    TREND,
    TTFT,
    TTFT_SUM,
    VARIANCE,
    WAITING,
    Floats,
    Memory,
    Sight,
    follow,
)

HISTORY = ("delta", "ema", "trend", "variance", "peak", "low")
"""What is known of a quantity's past.

delta: change since the last decision; ema: exponential moving average; trend: fast minus slow
average; variance: exponentially weighted; peak, low: extremes that decay towards the average.
"""

COMPONENTS = (
    "latency",
    "ttft",
    "slo",
    "throughput",
    "mean_latency",
    "imbalance",
    "threshold_penalty",
    "change",
)
"""Logged in every mode, whichever of them the reward is made of."""

PLAIN = (
    "waiting",
    "running",
    "decoding",
    "pending_prefill_tokens",
    "context_tokens",
    "kv_blocks_total",
    "restarts",
    "oldest_wait_s",
    "mean_wait_s",
)
DERIVED = ("generated_per_request", "kv_fraction_after_prompt", "batch_fill")
COMPARED = (
    "outstanding",
    "pending_prefill",
    "context",
    "kv_fraction",
    "predicted_ttft_s",
    "predicted_latency_s",
)
_SLOT = ("age_s", "prompt_tokens", "processed_tokens", "remaining_tokens")
_ORACLE = ("remaining_output_tokens", "remaining_output_gap")
_CONTEXT = (
    "prompt_tokens",
    "log_prompt",
    "outstanding_per_replica",
    "waiting_per_replica",
    "min_pending_prefill_tokens",
    "min_predicted_latency_s",
    "qps",
    "latency_s",
    "ttft_s",
    "completions_per_arrival",
    "balance",
)
_CONTEXT_HISTORY = ("ema", "trend", "variance")


def observation_schema(section: ObservationSection) -> ObservationSchema:
    """Return the names of all columns under this config."""
    replica = [*PLAIN, *DERIVED, *COMPARED, *(f"{name}_gap" for name in COMPARED)]
    context = list(_CONTEXT)
    if section.output_length == "oracle":
        replica += _ORACLE
        context += ["output_tokens"]
    if section.history:
        replica += [f"outstanding_{name}" for name in HISTORY]
        context += [f"qps_{name}" for name in _CONTEXT_HISTORY]
    replica += [f"queue{slot}_{name}" for slot in range(section.queue_slots) for name in _SLOT]
    return ObservationSchema(
        replica=tuple(replica), context=tuple(context), telemetry=(*TELEMETRY, *COMPONENTS)
    )


_PLAIN_ROWS = (
    WAITING,
    RUNNING,
    DECODING,
    PENDING_PREFILL,
    CONTEXT,
    KV_TOTAL,
    RESTARTS,
    OLDEST_WAIT,
    MEAN_WAIT,
)
assert len(_PLAIN_ROWS) == len(PLAIN)
_NUM_PLAIN = len(PLAIN)
_NUM_COMPARED = len(COMPARED)
_FIRST_COMPARED = len(PLAIN) + len(DERIVED)
_FIRST_GAP = _FIRST_COMPARED + _NUM_COMPARED
_FIRST_OPTIONAL = _FIRST_GAP + _NUM_COMPARED
_NUM_HISTORY = len(HISTORY)
_RECENT = 0.05


class FeatureRule(NamedTuple):
    """Which features there are; see ``ObservationSection``. The flags are 0 or 1."""

    oracle: int
    history: int
    history_alpha: float
    block_size: float


def feature_rule(section: ObservationSection, block_size: int) -> FeatureRule:
    return FeatureRule(
        oracle=int(section.output_length == "oracle"),
        history=int(section.history),
        history_alpha=section.history_alpha,
        block_size=float(block_size),
    )


@compiled
def _remember(interval: Floats, numbers: Floats) -> None:
    """Let the recent arrival gap, latencies and completion rate follow.

    Each completion of an interval counts as the mean of all of them, so that no order matters.
    """
    if numbers[GAP] == 0.0:
        numbers[GAP] = interval[DURATION]
    numbers[GAP] += _RECENT * (interval[DURATION] - numbers[GAP])
    completions = interval[COMPLETIONS]
    numbers[COMPLETION_RATE] += _RECENT * (completions - numbers[COMPLETION_RATE])
    if completions == 0.0:
        return
    latency, ttft = interval[E2E_SUM] / completions, interval[TTFT_SUM] / completions
    if np.isnan(numbers[LATENCY]):
        numbers[LATENCY], numbers[TTFT] = latency, ttft
        return
    weight = 1.0 - (1.0 - _RECENT) ** completions
    numbers[LATENCY] += weight * (latency - numbers[LATENCY])
    numbers[TTFT] += weight * (ttft - numbers[TTFT])


@compiled
def _write_compared(sight: Sight, out: Floats) -> None:
    """Write what replicas are compared by, and the gap to the best one.

    Routing is a choice among replicas, and gaps stay sharp at every load level.
    """
    table, replicas = sight.table, sight.table.shape[1]
    for replica in range(replicas):
        row = out[replica, _FIRST_COMPARED:_FIRST_GAP]
        row[0] = table[WAITING, replica] + table[RUNNING, replica]
        row[1] = table[PENDING_PREFILL, replica]
        row[2] = table[CONTEXT, replica]
        row[3] = table[KV_USED, replica] / table[KV_TOTAL, replica]
        row[4] = sight.predicted[0, replica]
        row[5] = sight.predicted[1, replica]
    for index in range(_NUM_COMPARED):
        least = np.inf
        for replica in range(replicas):
            least = min(least, out[replica, _FIRST_COMPARED + index])
        for replica in range(replicas):
            value = out[replica, _FIRST_COMPARED + index]
            out[replica, _FIRST_GAP + index] = value - least


@compiled
def _write_oracle(sight: Sight, out: Floats, first: int) -> int:
    table, replicas = sight.table, sight.table.shape[1]
    least = np.inf
    for replica in range(replicas):
        least = min(least, table[REMAINING_OUTPUT, replica])
    for replica in range(replicas):
        out[replica, first] = table[REMAINING_OUTPUT, replica]
        out[replica, first + 1] = table[REMAINING_OUTPUT, replica] - least
    return first + 2


@compiled
def _write_replicas(rule: FeatureRule, sight: Sight, memory: Memory, out: Floats) -> None:
    """Write the features [R, F]."""
    table, queues = sight.table, sight.queues
    prompt_blocks = sight.request[REQUEST_PROMPT] / rule.block_size
    for replica in range(table.shape[1]):
        for index, row in enumerate(_PLAIN_ROWS):
            out[replica, index] = table[row, replica]
        running = table[RUNNING, replica]
        derived = out[replica, _NUM_PLAIN:_FIRST_COMPARED]
        derived[0] = table[GENERATED, replica] / max(running, 1.0)
        derived[1] = (table[KV_USED, replica] + prompt_blocks) / table[KV_TOTAL, replica]
        derived[2] = running / table[BATCH_CAPACITY, replica]
    _write_compared(sight, out)
    column = _FIRST_OPTIONAL
    if rule.oracle:
        column = _write_oracle(sight, out, column)
    if rule.history:
        for replica in range(table.shape[1]):
            follow(memory.outstanding, replica, out[replica, _FIRST_COMPARED], rule.history_alpha)
            for row in range(_NUM_HISTORY):
                out[replica, column + row] = memory.outstanding[row, replica]
        column += _NUM_HISTORY
    for replica in range(queues.shape[0]):
        for slot in range(queues.shape[1]):
            waiting = queues[replica, slot]
            first = column + 4 * slot
            out[replica, first] = waiting[AGE]
            out[replica, first + 1] = waiting[PROMPT]
            out[replica, first + 2] = waiting[PROCESSED]
            out[replica, first + 3] = waiting[PROMPT] - waiting[PROCESSED]


@compiled
def _balance(table: Floats) -> float:
    """Return 1 for even outstanding requests, 0 when one replica holds them all."""
    replicas = table.shape[1]
    total = most = 0.0
    for replica in range(replicas):
        load = table[WAITING, replica] + table[RUNNING, replica]
        total += load
        most = max(most, load)
    if total == 0.0 or replicas == 1:
        return 1.0
    even = 1.0 / replicas
    return 1.0 - (most / total - even) / (1.0 - even)


@compiled
def _least(values: Floats) -> float:
    least = np.inf
    for value in values:
        least = min(least, value)
    return least


@compiled
def write_observation(
    rule: FeatureRule,
    sight: Sight,
    memory: Memory,
    replicas: Floats,
    context: Floats,
    telemetry: Floats,
) -> None:
    """Write one observation: replicas [R, F], context [C], and the first entries of telemetry.

    Behind them telemetry holds the reward's components, which are the caller's.
    """
    table, numbers, request = sight.table, memory.numbers, sight.request
    _remember(sight.interval, numbers)
    _write_replicas(rule, sight, memory, replicas)
    count = table.shape[1]
    qps = 1.0 / numbers[GAP] if numbers[GAP] > 0.0 else 0.0
    balance = _balance(table)
    context[0] = request[REQUEST_PROMPT]
    context[1] = math.log(request[REQUEST_PROMPT])
    context[2] = (table[WAITING].sum() + table[RUNNING].sum()) / count
    context[3] = table[WAITING].sum() / count
    context[4] = _least(table[PENDING_PREFILL])
    context[5] = _least(sight.predicted[1])
    context[6] = qps
    context[7] = 0.0 if np.isnan(numbers[LATENCY]) else numbers[LATENCY]
    context[8] = 0.0 if np.isnan(numbers[TTFT]) else numbers[TTFT]
    context[9] = numbers[COMPLETION_RATE]
    context[10] = balance
    column = 11
    if rule.oracle:
        context[column] = request[REQUEST_OUTPUT]
        column += 1
    if rule.history:
        follow(memory.qps, 0, qps, rule.history_alpha)
        context[column] = memory.qps[EMA, 0]
        context[column + 1] = memory.qps[TREND, 0]
        context[column + 2] = memory.qps[VARIANCE, 0]
    telemetry[0] = qps
    telemetry[1] = numbers[LATENCY]
    telemetry[2] = balance
