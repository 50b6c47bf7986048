"""Compiled: what a router can predict of a request's latency, from a replica's speed and load.

An iteration of n decoding requests with c tokens of context takes about base[n] + slope * c
seconds: attention reads the whole cache, everything else depends on n alone. Prefill advances in
full batches. A request's time outside of batches is the same for all of a replica. Output lengths
are unknown to a router: the mean of the completed requests stands for them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.columns import Column
from vidur_ext.routing.view import Prediction


class Rate(Column):
    """A replica's speed: columns of ``Estimates.rates``."""

    SLOPE = "s", "that a token of context adds to an iteration"
    CHUNK_S = "s", "of a full batch of prompt tokens"
    PREFILL_S_PER_TOKEN = "s", "per prompt token when batches are full"
    DECODE_TOKEN_S = "s", "per output token when batches are full"
    REQUEST_S = "s", "that a request spends outside its batches: HTTP, tokenizer, detokenizer"


class Estimates(NamedTuple):
    """How fast each replica is, and how long outputs are before any request is completed.

    base [R, C + 1]: seconds of an iteration of n requests without context; rates [R, len(Rate)];
    prefill_tokens: prompt tokens of a full batch; output_sum, output_count: the prior's output
    tokens and its weight in requests.
    """

    base: Floats
    rates: Floats
    prefill_tokens: float
    output_sum: float
    output_count: float


def expected_output_tokens(known: Estimates, completed: float, output_tokens: float) -> float:
    """Return the mean output length of the completed requests, begun at the prior."""
    return (known.output_sum + output_tokens) / (known.output_count + completed)


@compiled
def predict(
    known: Estimates,
    index: int,
    replica: Any,
    request: Any,
    found_tokens: float,
    found_in_use_tokens: float,
) -> Any:
    """Return the ``Prediction`` for a replica, from its ``SeenReplica`` and the ``SeenRequest``.

    Args:
        found_tokens: of the prompt, expected in the replica's prefix cache.
        found_in_use_tokens: of these, in blocks that running requests use.
    """
    rates, cap = known.rates[index], known.base.shape[1] - 1
    backlog = replica.uncached_prefill_tokens + request.prompt_tokens - found_tokens
    room = max(known.prefill_tokens - replica.decoding, 1.0)
    of_context = rates[Rate.SLOPE] * replica.context_tokens
    ttft_s = math.ceil(backlog / room) * (rates[Rate.CHUNK_S] + of_context) + rates[Rate.REQUEST_S]
    batch = int(min(replica.running + 1.0, float(cap)))
    decode_iteration_s = known.base[index, batch] + of_context
    return Prediction(
        found_tokens=found_tokens,
        found_in_use_tokens=found_in_use_tokens,
        ttft_s=ttft_s,
        latency_s=ttft_s + request.expected_output_tokens * decode_iteration_s,
        remaining_work_s=replica.pending_prefill_tokens * rates[Rate.PREFILL_S_PER_TOKEN]
        + replica.remaining_output_tokens * rates[Rate.DECODE_TOKEN_S],
    )
