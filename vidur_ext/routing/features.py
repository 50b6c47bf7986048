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
    Arriving,
    Elapsed,
    Floats,
    Memory,
    Past,
    Predicted,
    Quantity,
    Queued,
    Remembered,
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
    Quantity.WAITING,
    Quantity.RUNNING,
    Quantity.DECODING,
    Quantity.PENDING_PREFILL_TOKENS,
    Quantity.CONTEXT_TOKENS,
    Quantity.KV_BLOCKS_TOTAL,
    Quantity.RESTARTS,
    Quantity.OLDEST_WAIT_S,
    Quantity.MEAN_WAIT_S,
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
    if numbers[Remembered.GAP_S] == 0.0:
        numbers[Remembered.GAP_S] = interval[Elapsed.DURATION_S]
    numbers[Remembered.GAP_S] += _RECENT * (
        interval[Elapsed.DURATION_S] - numbers[Remembered.GAP_S]
    )
    completions = interval[Elapsed.COMPLETIONS]
    numbers[Remembered.COMPLETION_RATE] += _RECENT * (
        completions - numbers[Remembered.COMPLETION_RATE]
    )
    if completions == 0.0:
        return
    latency, ttft = (
        interval[Elapsed.E2E_SUM_S] / completions,
        interval[Elapsed.TTFT_SUM_S] / completions,
    )
    if np.isnan(numbers[Remembered.LATENCY_S]):
        numbers[Remembered.LATENCY_S], numbers[Remembered.TTFT_S] = latency, ttft
        return
    weight = 1.0 - (1.0 - _RECENT) ** completions
    numbers[Remembered.LATENCY_S] += weight * (latency - numbers[Remembered.LATENCY_S])
    numbers[Remembered.TTFT_S] += weight * (ttft - numbers[Remembered.TTFT_S])


@compiled
def _write_compared(sight: Sight, out: Floats) -> None:
    """Write what replicas are compared by, and the gap to the best one.

    Routing is a choice among replicas, and gaps stay sharp at every load level.
    """
    table, replicas = sight.table, sight.table.shape[1]
    for replica in range(replicas):
        row = out[replica, _FIRST_COMPARED:_FIRST_GAP]
        row[0] = table[Quantity.WAITING, replica] + table[Quantity.RUNNING, replica]
        row[1] = table[Quantity.PENDING_PREFILL_TOKENS, replica]
        row[2] = table[Quantity.CONTEXT_TOKENS, replica]
        row[3] = table[Quantity.KV_BLOCKS_USED, replica] / table[Quantity.KV_BLOCKS_TOTAL, replica]
        row[4] = sight.predicted[Predicted.TTFT_S, replica]
        row[5] = sight.predicted[Predicted.LATENCY_S, replica]
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
        least = min(least, table[Quantity.REMAINING_OUTPUT_TOKENS, replica])
    for replica in range(replicas):
        out[replica, first] = table[Quantity.REMAINING_OUTPUT_TOKENS, replica]
        out[replica, first + 1] = table[Quantity.REMAINING_OUTPUT_TOKENS, replica] - least
    return first + 2


@compiled
def _write_replicas(rule: FeatureRule, sight: Sight, memory: Memory, out: Floats) -> None:
    """Write the features [R, F]."""
    table, queues = sight.table, sight.queues
    prompt_blocks = sight.request[Arriving.PROMPT_TOKENS] / rule.block_size
    for replica in range(table.shape[1]):
        for index, quantity in enumerate(_PLAIN_ROWS):
            out[replica, index] = table[quantity, replica]
        running = table[Quantity.RUNNING, replica]
        derived = out[replica, _NUM_PLAIN:_FIRST_COMPARED]
        derived[0] = table[Quantity.GENERATED_TOKENS, replica] / max(running, 1.0)
        derived[1] = (table[Quantity.KV_BLOCKS_USED, replica] + prompt_blocks) / table[
            Quantity.KV_BLOCKS_TOTAL, replica
        ]
        derived[2] = running / table[Quantity.BATCH_CAPACITY, replica]
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
            out[replica, first] = waiting[Queued.AGE_S]
            out[replica, first + 1] = waiting[Queued.PROMPT_TOKENS]
            out[replica, first + 2] = waiting[Queued.PROCESSED_TOKENS]
            out[replica, first + 3] = (
                waiting[Queued.PROMPT_TOKENS] - waiting[Queued.PROCESSED_TOKENS]
            )


@compiled
def _balance(table: Floats) -> float:
    """Return 1 for even outstanding requests, 0 when one replica holds them all."""
    replicas = table.shape[1]
    total = most = 0.0
    for replica in range(replicas):
        load = table[Quantity.WAITING, replica] + table[Quantity.RUNNING, replica]
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
    qps = 1.0 / numbers[Remembered.GAP_S] if numbers[Remembered.GAP_S] > 0.0 else 0.0
    balance = _balance(table)
    context[0] = request[Arriving.PROMPT_TOKENS]
    context[1] = math.log(request[Arriving.PROMPT_TOKENS])
    context[2] = (table[Quantity.WAITING].sum() + table[Quantity.RUNNING].sum()) / count
    context[3] = table[Quantity.WAITING].sum() / count
    context[4] = _least(table[Quantity.PENDING_PREFILL_TOKENS])
    context[5] = _least(sight.predicted[Predicted.LATENCY_S])
    context[6] = qps
    context[7] = 0.0 if np.isnan(numbers[Remembered.LATENCY_S]) else numbers[Remembered.LATENCY_S]
    context[8] = 0.0 if np.isnan(numbers[Remembered.TTFT_S]) else numbers[Remembered.TTFT_S]
    context[9] = numbers[Remembered.COMPLETION_RATE]
    context[10] = balance
    column = 11
    if rule.oracle:
        context[column] = request[Arriving.OUTPUT_TOKENS]
        column += 1
    if rule.history:
        follow(memory.qps, 0, qps, rule.history_alpha)
        context[column] = memory.qps[Past.EMA, 0]
        context[column + 1] = memory.qps[Past.TREND, 0]
        context[column + 2] = memory.qps[Past.VARIANCE, 0]
    telemetry[0] = qps
    telemetry[1] = numbers[Remembered.LATENCY_S]
    telemetry[2] = balance
