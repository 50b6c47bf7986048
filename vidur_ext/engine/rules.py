"""Compiled: the routing heuristics, on the same numbers and random words as their Vidur forms."""

from __future__ import annotations

import math

import numpy as np

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    ARRIVALS,
    BLOCKS,
    CHUNK_S,
    DECODE_TOKEN_S,
    DECODING,
    FINISHED,
    FINISHED_OUTPUT,
    FREE,
    GIVEN,
    LEAST_KV,
    LEAST_OUTSTANDING,
    LEAST_TOKENS,
    LOR,
    MEMBERS,
    MIN_PREDICTED_LATENCY,
    OFFSETS,
    PARTIAL_DONE,
    PENDING,
    POWER_OF_TWO,
    PREFILL_S_PER_TOKEN,
    PROMPT,
    ROUNDS,
    SLOPE,
    TOKENS,
    VLLM_DP,
    WAITING,
    WORD,
    Simulation,
)
from vidur_ext.scheduler.global_scheduler.heuristics import KV_TOKEN_WEIGHT, VLLM_WAITING_WEIGHT


@compiled
def _draw(sim: Simulation, top: int) -> int:
    """Return an integer of [0, top] from the words as NumPy's Generator draws it.

    Lemire, Fast random integer generation in an interval, 2019; one value draws no word.
    """
    if top == 0:
        return 0
    words, counters = sim.inputs.words, sim.state.counters
    size = np.uint64(top + 1)
    threshold = (np.uint64(0xFFFFFFFF) - np.uint64(top)) % size
    while True:
        if counters[WORD] == len(words):
            raise IndexError("the random words that break ties are used up")
        product = np.uint64(words[counters[WORD]]) * size
        counters[WORD] += 1
        if (product & np.uint64(0xFFFFFFFF)) >= threshold:
            return int(np.int64(product >> np.uint64(32)))


@compiled
def context_tokens(sim: Simulation, replica: int) -> int:
    """Return the tokens in a replica's KV cache."""
    row = sim.state.replicas[replica]
    return int(row[OFFSETS] + row[DECODING] * row[ROUNDS] + row[PARTIAL_DONE])


@compiled
def predicted_s(sim: Simulation, replica: int, prompt_tokens: int) -> tuple[float, float]:
    """Return ``LatencyEstimator.ttft_and_latency_s`` of one replica."""
    row = sim.state.replicas[replica]
    counters, known = sim.state.counters, sim.estimates
    context, slope = float(context_tokens(sim, replica)), known.rates[replica, SLOPE]
    backlog = float(row[PENDING] + prompt_tokens)
    room = max(known.prefill_tokens - float(row[DECODING]), 1.0)
    ttft = math.ceil(backlog / room) * (known.rates[replica, CHUNK_S] + slope * context)
    batch = min(row[MEMBERS] + 1, known.base.shape[1] - 1)
    output = (known.output_sum + counters[FINISHED_OUTPUT]) / (
        known.output_count + counters[FINISHED]
    )
    return float(ttft), float(ttft + output * (known.base[replica, batch] + slope * context))


@compiled
def _score(sim: Simulation, replica: int, request: int) -> float:
    """Return how loaded the rule considers a replica."""
    rule = sim.settings.rule
    row = sim.state.replicas[replica]
    if rule in (LEAST_OUTSTANDING, POWER_OF_TWO):
        return float(row[WAITING] + row[MEMBERS])
    if rule == LEAST_TOKENS:
        return float(row[PENDING] + KV_TOKEN_WEIGHT * context_tokens(sim, replica))
    if rule == LEAST_KV:
        blocks = sim.settings.own[replica, BLOCKS]
        return float((blocks - row[FREE]) / blocks)
    if rule == VLLM_DP:
        return float(VLLM_WAITING_WEIGHT * row[WAITING] + row[MEMBERS])
    if rule == MIN_PREDICTED_LATENCY:
        return predicted_s(sim, replica, sim.state.requests[request, PROMPT])[1]
    pending = row[PENDING]
    remaining = row[TOKENS] - context_tokens(sim, replica) - pending
    known = sim.estimates
    return float(
        pending * known.rates[replica, PREFILL_S_PER_TOKEN]
        + remaining * known.rates[replica, DECODE_TOKEN_S]
    )


@compiled
def _lightest(sim: Simulation, request: int) -> int:
    """Return the replica with the smallest score, ties broken uniformly."""
    best, ties = np.inf, 0
    for replica in range(len(sim.state.replicas)):
        score = _score(sim, replica, request)
        if score < best:
            best, ties = score, 1
        elif score == best:
            ties += 1
    remaining = _draw(sim, ties - 1) + 1
    chosen = -1
    while remaining > 0:
        chosen += 1
        if _score(sim, chosen, request) == best:
            remaining -= 1
    return chosen


@compiled
def _lighter_of_two(sim: Simulation, request: int) -> int:
    """Return the lighter of two replicas, drawn as ``Generator.choice`` draws without replacement.

    Floyd's sampling, then a shuffle of the two.
    """
    count = len(sim.state.replicas)
    if count == 1:
        return 0
    one, two = _draw(sim, count - 2), _draw(sim, count - 1)
    if one == two:
        two = count - 1
    if _draw(sim, 1) == 0:
        one, two = two, one
    left, right = _score(sim, one, request), _score(sim, two, request)
    if left == right:
        return one if _draw(sim, 1) == 0 else two
    return one if left < right else two


@compiled
def _shortest_queue(sim: Simulation) -> int:
    """Return the first replica with the fewest waiting requests: Vidur's LOR."""
    best = 0
    for replica in range(1, len(sim.state.replicas)):
        if sim.state.replicas[replica, WAITING] < sim.state.replicas[best, WAITING]:
            best = replica
    return best


@compiled
def route(sim: Simulation) -> int:
    """Return the replica for the next request, or -1 where the caller decides."""
    rule = sim.settings.rule
    request = sim.state.counters[ARRIVALS]
    if rule == GIVEN:
        return int(sim.inputs.choices[request])
    if rule == LOR:
        return _shortest_queue(sim)
    if rule == POWER_OF_TWO:
        return _lighter_of_two(sim, request)
    return _lightest(sim, request)
