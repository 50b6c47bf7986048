"""Compiled: a simulation as its router sees it, and the routing heuristics on it."""

from __future__ import annotations

import math

import numpy as np

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    GIVEN,
    LEAST_KV,
    LEAST_OUTSTANDING,
    LEAST_TOKENS,
    LOR,
    MIN_PREDICTED_LATENCY,
    POWER_OF_TWO,
    VLLM_DP,
    Counter,
    Own,
    Rate,
    Replica,
    Request,
    Simulation,
    Since,
    Time,
)
from vidur_ext.routing.heuristics import KV_TOKEN_WEIGHT, VLLM_WAITING_WEIGHT
from vidur_ext.routing.reward import RewardRule
from vidur_ext.routing.view import Arriving, Elapsed, Floats, Predicted, Quantity, Queued, Sight


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
        if counters[Counter.WORD] == len(words):
            raise IndexError("the random words that break ties are used up")
        product = np.uint64(words[counters[Counter.WORD]]) * size
        counters[Counter.WORD] += 1
        if (product & np.uint64(0xFFFFFFFF)) >= threshold:
            return int(np.int64(product >> np.uint64(32)))


@compiled
def context_tokens(sim: Simulation, replica: int) -> int:
    """Return the tokens in a replica's KV cache."""
    row = sim.state.replicas[replica]
    return int(
        row[Replica.OFFSETS]
        + row[Replica.DECODING] * row[Replica.ROUNDS]
        + row[Replica.PARTIAL_DONE]
    )


@compiled
def predicted_s(sim: Simulation, replica: int, prompt_tokens: int) -> tuple[float, float]:
    """Return ``LatencyEstimator.ttft_and_latency_s`` of one replica."""
    row = sim.state.replicas[replica]
    counters, known = sim.state.counters, sim.estimates
    context, slope = float(context_tokens(sim, replica)), known.rates[replica, Rate.SLOPE]
    backlog = float(row[Replica.PENDING] + prompt_tokens)
    room = max(known.prefill_tokens - float(row[Replica.DECODING]), 1.0)
    ttft = math.ceil(backlog / room) * (known.rates[replica, Rate.CHUNK_S] + slope * context)
    batch = min(row[Replica.MEMBERS] + 1, known.base.shape[1] - 1)
    output = (known.output_sum + counters[Counter.FINISHED_OUTPUT]) / (
        known.output_count + counters[Counter.FINISHED]
    )
    return float(ttft), float(ttft + output * (known.base[replica, batch] + slope * context))


@compiled
def _score(sim: Simulation, replica: int, request: int) -> float:
    """Return how loaded the rule considers a replica."""
    rule = sim.settings.rule
    row = sim.state.replicas[replica]
    if rule in (LEAST_OUTSTANDING, POWER_OF_TWO):
        return float(row[Replica.WAITING] + row[Replica.MEMBERS])
    if rule == LEAST_TOKENS:
        return float(row[Replica.PENDING] + KV_TOKEN_WEIGHT * context_tokens(sim, replica))
    if rule == LEAST_KV:
        blocks = sim.settings.own[replica, Own.BLOCKS]
        return float((blocks - row[Replica.FREE]) / blocks)
    if rule == VLLM_DP:
        return float(VLLM_WAITING_WEIGHT * row[Replica.WAITING] + row[Replica.MEMBERS])
    if rule == MIN_PREDICTED_LATENCY:
        return predicted_s(sim, replica, sim.state.requests[request, Request.PROMPT])[1]
    pending = row[Replica.PENDING]
    remaining = row[Replica.TOKENS] - context_tokens(sim, replica) - pending
    known = sim.estimates
    return float(
        pending * known.rates[replica, Rate.PREFILL_S_PER_TOKEN]
        + remaining * known.rates[replica, Rate.DECODE_TOKEN_S]
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
        if sim.state.replicas[replica, Replica.WAITING] < sim.state.replicas[best, Replica.WAITING]:
            best = replica
    return best


@compiled
def route(sim: Simulation) -> int:
    """Return the replica for the next request, or -1 where the caller decides."""
    rule = sim.settings.rule
    request = sim.state.counters[Counter.ARRIVALS]
    if rule == GIVEN:
        return int(sim.inputs.choices[request])
    if rule == LOR:
        return _shortest_queue(sim)
    if rule == POWER_OF_TWO:
        return _lighter_of_two(sim, request)
    return _lightest(sim, request)


@compiled
def _see_queue(sim: Simulation, replica: int, now: float, sight: Sight) -> None:
    """Write how long requests have waited, and the first ones of the queue."""
    requests, row = sim.state.requests, sim.state.replicas[replica]
    queue = sight.queues[replica]
    request = row[Replica.HEAD]
    waited = oldest = 0.0
    for position in range(row[Replica.WAITING]):
        age = now - sim.inputs.arrived[request]
        waited += age
        oldest = max(oldest, age)
        if position < len(queue):
            queue[position, Queued.AGE_S] = age
            queue[position, Queued.PROMPT_TOKENS] = requests[request, Request.PROMPT]
            queue[position, Queued.PROCESSED_TOKENS] = 0.0
        request = requests[request, Request.NEXT]
    for position in range(row[Replica.WAITING], len(queue)):
        queue[position, :] = 0.0
    sight.table[Quantity.OLDEST_WAIT_S, replica] = oldest
    sight.table[Quantity.MEAN_WAIT_S, replica] = (
        waited / row[Replica.WAITING] if row[Replica.WAITING] else 0.0
    )


@compiled
def _see_replica(sim: Simulation, replica: int, capacity: float, sight: Sight) -> None:
    row, table = sim.state.replicas[replica], sight.table
    blocks = sim.settings.own[replica, Own.BLOCKS]
    context = context_tokens(sim, replica)
    table[Quantity.WAITING, replica] = row[Replica.WAITING]
    table[Quantity.RUNNING, replica] = row[Replica.MEMBERS]
    table[Quantity.DECODING, replica] = row[Replica.DECODING]
    table[Quantity.PENDING_PREFILL_TOKENS, replica] = row[Replica.PENDING]
    table[Quantity.CONTEXT_TOKENS, replica] = context
    table[Quantity.GENERATED_TOKENS, replica] = (
        row[Replica.GENERATED] + row[Replica.DECODING] * row[Replica.ROUNDS]
    )
    table[Quantity.KV_BLOCKS_USED, replica] = blocks - row[Replica.FREE]
    table[Quantity.KV_BLOCKS_TOTAL, replica] = blocks
    table[Quantity.RESTARTS, replica] = row[Replica.RESTARTED]
    table[Quantity.BATCH_CAPACITY, replica] = capacity
    table[Quantity.REMAINING_OUTPUT_TOKENS, replica] = (
        row[Replica.TOKENS] - context - row[Replica.PENDING]
    )


@compiled
def _see_completions(sim: Simulation, rule: RewardRule, interval: Floats) -> None:
    """Add up the requests that were completed since the last decision."""
    state, arrived = sim.state, sim.inputs.arrived
    for index in range(state.counters[Counter.SEEN], state.counters[Counter.FINISHED]):
        request = state.completions[index]
        answered, completed = (
            state.times[request, Time.PREFILLED],
            state.times[request, Time.COMPLETED],
        )
        output = state.requests[request, Request.OUTPUT]
        ttft = answered - arrived[request]
        tbt = (completed - answered) / (output - 1) if output > 1 else 0.0
        interval[Elapsed.COMPLETIONS] += 1.0
        interval[Elapsed.E2E_SUM_S] += completed - arrived[request]
        interval[Elapsed.TTFT_SUM_S] += ttft
        if ttft <= rule.slo_ttft_s and tbt <= rule.slo_tbt_s:
            interval[Elapsed.IN_TIME] += 1.0


@compiled
def see_interval(sim: Simulation, rule: RewardRule, interval: Floats) -> None:
    """Write what happened between the last decision and the present instant.

    No request arrives between two decisions: all that are here have been since the last one.
    """
    state = sim.state
    decided = state.counters[Counter.ARRIVALS]
    duration = state.now[0] - sim.inputs.arrived[decided - 1] if decided else 0.0
    alive = 0
    for replica in range(len(state.replicas)):
        alive += state.replicas[replica, Replica.WAITING] + state.replicas[replica, Replica.MEMBERS]
    unanswered = state.counters[Counter.UNANSWERED]
    interval[:] = 0.0
    interval[Elapsed.DURATION_S] = duration
    interval[Elapsed.REQUEST_SECONDS] = state.since[Since.COMPLETED_AFTER] + alive * duration
    interval[Elapsed.UNANSWERED_SECONDS] = state.since[Since.ANSWERED_AFTER] + unanswered * duration
    _see_completions(sim, rule, interval)


@compiled
def see(sim: Simulation, rule: RewardRule, capacity: float, sight: Sight) -> None:
    """Write all that is seen when the next request waits for its replica, or at the very end.

    ``capacity`` is the requests that one batch may hold, as the replica scheduler's config says.
    """
    state = sim.state
    see_interval(sim, rule, sight.interval)
    for replica in range(len(state.replicas)):
        _see_replica(sim, replica, capacity, sight)
        _see_queue(sim, replica, state.now[0], sight)
    request = state.counters[Counter.ARRIVALS]
    if request == len(state.requests):
        return
    prompt = state.requests[request, Request.PROMPT]
    sight.request[Arriving.PROMPT_TOKENS] = prompt
    sight.request[Arriving.OUTPUT_TOKENS] = state.requests[request, Request.OUTPUT]
    for replica in range(len(state.replicas)):
        ttft, latency = predicted_s(sim, replica, prompt)
        sight.predicted[Predicted.TTFT_S, replica] = ttft
        sight.predicted[Predicted.LATENCY_S, replica] = latency
