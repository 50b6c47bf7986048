"""Compiled: a simulation as its router sees it, in the arrays of ``env.sight``."""

from __future__ import annotations

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    ANSWERED_AFTER,
    ARRIVALS,
    BLOCKS,
    COMPLETED,
    COMPLETED_AFTER,
    DECODING,
    FINISHED,
    FREE,
    GENERATED,
    HEAD,
    MEMBERS,
    NEXT,
    OUTPUT,
    PENDING,
    PREFILLED,
    PROMPT,
    RESTARTED,
    ROUNDS,
    SEEN,
    TOKENS,
    UNANSWERED,
    WAITING,
    Simulation,
)
from vidur_ext.engine.rules import context_tokens, predicted_s
from vidur_ext.env import columns
from vidur_ext.env.reward import RewardRule
from vidur_ext.env.sight import Floats, Sight


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
