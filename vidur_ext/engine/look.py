"""Compiled: a simulation as its router sees it, and the routing heuristics on it."""

from __future__ import annotations

import math

import numpy as np

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    ANSWERED_AFTER,
    ARRIVALS,
    BLOCKS,
    CHUNK_S,
    COMPLETED,
    COMPLETED_AFTER,
    DECODE_TOKEN_S,
    DECODING,
    FINISHED,
    FINISHED_OUTPUT,
    FREE,
    GENERATED,
    GIVEN,
    HEAD,
    LEAST_KV,
    LEAST_OUTSTANDING,
    LEAST_TOKENS,
    LOR,
    MEMBERS,
    MIN_PREDICTED_LATENCY,
    NEXT,
    OFFSETS,
    OUTPUT,
    PARTIAL_DONE,
    PENDING,
    POWER_OF_TWO,
    PREFILL_S_PER_TOKEN,
    PREFILLED,
    PROMPT,
    RESTARTED,
    ROUNDS,
    SEEN,
    SLOPE,
    TOKENS,
    UNANSWERED,
    VLLM_DP,
    WAITING,
    WORD,
    Simulation,
)
from vidur_ext.routing import view as columns
from vidur_ext.routing.heuristics import KV_TOKEN_WEIGHT, VLLM_WAITING_WEIGHT
from vidur_ext.routing.reward import RewardRule
from vidur_ext.routing.view import Floats, Sight


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


@compiled
def _see_queue(sim: Simulation, replica: int, now: float, sight: Sight) -> None:
    """Write how long requests have waited, and the first ones of the queue."""
    requests, row = sim.state.requests, sim.state.replicas[replica]
    queue = sight.queues[replica]
    request = row[HEAD]
    waited = oldest = 0.0
    for position in range(row[WAITING]):
        age = now - sim.inputs.arrived[request]
        waited += age
        oldest = max(oldest, age)
        if position < len(queue):
            queue[position, columns.AGE] = age
            queue[position, columns.PROMPT] = requests[request, PROMPT]
            queue[position, columns.PROCESSED] = 0.0
        request = requests[request, NEXT]
    for position in range(row[WAITING], len(queue)):
        queue[position, :] = 0.0
    sight.table[columns.OLDEST_WAIT, replica] = oldest
    sight.table[columns.MEAN_WAIT, replica] = waited / row[WAITING] if row[WAITING] else 0.0


@compiled
def _see_replica(sim: Simulation, replica: int, capacity: float, sight: Sight) -> None:
    row, table = sim.state.replicas[replica], sight.table
    blocks = sim.settings.own[replica, BLOCKS]
    context = context_tokens(sim, replica)
    table[columns.WAITING, replica] = row[WAITING]
    table[columns.RUNNING, replica] = row[MEMBERS]
    table[columns.DECODING, replica] = row[DECODING]
    table[columns.PENDING_PREFILL, replica] = row[PENDING]
    table[columns.CONTEXT, replica] = context
    table[columns.GENERATED, replica] = row[GENERATED] + row[DECODING] * row[ROUNDS]
    table[columns.KV_USED, replica] = blocks - row[FREE]
    table[columns.KV_TOTAL, replica] = blocks
    table[columns.RESTARTS, replica] = row[RESTARTED]
    table[columns.BATCH_CAPACITY, replica] = capacity
    table[columns.REMAINING_OUTPUT, replica] = row[TOKENS] - context - row[PENDING]


@compiled
def _see_completions(sim: Simulation, rule: RewardRule, interval: Floats) -> None:
    """Add up the requests that were completed since the last decision."""
    state, arrived = sim.state, sim.inputs.arrived
    for index in range(state.counters[SEEN], state.counters[FINISHED]):
        request = state.completions[index]
        answered, completed = state.times[request, PREFILLED], state.times[request, COMPLETED]
        output = state.requests[request, OUTPUT]
        ttft = answered - arrived[request]
        tbt = (completed - answered) / (output - 1) if output > 1 else 0.0
        interval[columns.COMPLETIONS] += 1.0
        interval[columns.E2E_SUM] += completed - arrived[request]
        interval[columns.TTFT_SUM] += ttft
        if ttft <= rule.slo_ttft_s and tbt <= rule.slo_tbt_s:
            interval[columns.IN_TIME] += 1.0


@compiled
def see_interval(sim: Simulation, rule: RewardRule, interval: Floats) -> None:
    """Write what happened between the last decision and the present instant.

    No request arrives between two decisions: all that are here have been since the last one.
    """
    state = sim.state
    decided = state.counters[ARRIVALS]
    duration = state.now[0] - sim.inputs.arrived[decided - 1] if decided else 0.0
    alive = 0
    for replica in range(len(state.replicas)):
        alive += state.replicas[replica, WAITING] + state.replicas[replica, MEMBERS]
    unanswered = state.counters[UNANSWERED]
    interval[:] = 0.0
    interval[columns.DURATION] = duration
    interval[columns.REQUEST_SECONDS] = state.since[COMPLETED_AFTER] + alive * duration
    interval[columns.UNANSWERED_SECONDS] = state.since[ANSWERED_AFTER] + unanswered * duration
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
    request = state.counters[ARRIVALS]
    if request == len(state.requests):
        return
    prompt = state.requests[request, PROMPT]
    sight.request[columns.REQUEST_PROMPT] = prompt
    sight.request[columns.REQUEST_OUTPUT] = state.requests[request, OUTPUT]
    for replica in range(len(state.replicas)):
        ttft, latency = predicted_s(sim, replica, prompt)
        sight.predicted[0, replica] = ttft
        sight.predicted[1, replica] = latency
