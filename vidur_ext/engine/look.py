"""Compiled: a simulation as its router sees it. What a heuristic does not read costs nothing."""

from __future__ import annotations

from typing import Any

from ppo_scheduler.observation import Floats
from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import Counter, Own, Replica, Request, Simulation, Since, Time
from vidur_ext.routing.components import RewardRule
from vidur_ext.routing.estimator import expected_output_tokens, predict
from vidur_ext.routing.view import (
    Arriving,
    Elapsed,
    Queued,
    Seen,
    SeenReplica,
    SeenRequest,
    Sight,
    write_column,
)

_expected_output_tokens = compiled(expected_output_tokens)


@compiled
def _waits(sim: Simulation, replica: int) -> tuple[float, float]:
    """Return how long the oldest waiting request and all of them on average have waited [s]."""
    row, now = sim.state.replicas[replica], sim.state.now[0]
    request = row[Replica.HEAD]
    oldest = total = 0.0
    for _ in range(row[Replica.WAITING]):
        age = now - sim.inputs.arrived[request]
        oldest = max(oldest, age)
        total += age
        request = sim.state.requests[request, Request.NEXT]
    return oldest, total / row[Replica.WAITING] if row[Replica.WAITING] else 0.0


@compiled
def _look_at_replica(sim: Simulation, replica: int) -> Any:
    """Return the ``SeenReplica``: every quantity, as the engine's state tells it."""
    row = sim.state.replicas[replica]
    decoded = row[Replica.DECODING] * row[Replica.ROUNDS]
    context = row[Replica.OFFSETS] + decoded + row[Replica.PARTIAL_DONE]
    blocks = sim.settings.own[replica, Own.BLOCKS]
    oldest_wait_s, mean_wait_s = _waits(sim, replica)
    return SeenReplica(
        waiting=float(row[Replica.WAITING]),
        running=float(row[Replica.MEMBERS]),
        decoding=float(row[Replica.DECODING]),
        pending_prefill_tokens=float(row[Replica.PENDING]),
        context_tokens=float(context),
        generated_tokens=float(row[Replica.GENERATED] + decoded),
        kv_blocks_used=float(blocks - row[Replica.FREE]),
        kv_blocks_total=float(blocks),
        restarts=float(row[Replica.RESTARTED]),
        oldest_wait_s=oldest_wait_s,
        mean_wait_s=mean_wait_s,
        batch_capacity=sim.settings.batch_capacity,
        remaining_output_tokens=float(row[Replica.TOKENS] - context - row[Replica.PENDING]),
    )


@compiled
def _look_at_request(sim: Simulation) -> Any:
    """Return the ``SeenRequest`` of the next request."""
    counters = sim.state.counters
    request = sim.state.requests[counters[Counter.ARRIVALS]]
    return SeenRequest(
        prompt_tokens=float(request[Request.PROMPT]),
        expected_output_tokens=_expected_output_tokens(
            sim.estimates, counters[Counter.FINISHED], counters[Counter.FINISHED_OUTPUT]
        ),
        output_tokens=float(request[Request.OUTPUT]),
    )


@compiled
def look(sim: Simulation, replica: int) -> Seen:
    """Return what is seen of a replica when the next request waits to be routed."""
    seen, request = _look_at_replica(sim, replica), _look_at_request(sim)
    return Seen(seen, predict(sim.estimates, replica, seen, request), request)


@compiled
def _see_queue(sim: Simulation, replica: int, queue: Floats) -> None:
    """Write the first waiting requests of a replica [K, len(Queued)]; the absent ones are zeros."""
    requests, row = sim.state.requests, sim.state.replicas[replica]
    request = row[Replica.HEAD]
    for position in range(len(queue)):
        entry = queue[position]
        entry[:] = 0.0
        if position < row[Replica.WAITING]:
            entry[Queued.AGE_S] = sim.state.now[0] - sim.inputs.arrived[request]
            entry[Queued.PROMPT_TOKENS] = requests[request, Request.PROMPT]
            request = requests[request, Request.NEXT]


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
def see(sim: Simulation, rule: RewardRule, sight: Sight) -> None:
    """Write all that is seen when the next request waits for its replica, or at the very end."""
    state = sim.state
    see_interval(sim, rule, sight.interval)
    if state.counters[Counter.ARRIVALS] == len(state.requests):
        for replica in range(len(state.replicas)):
            write_column(_look_at_replica(sim, replica), replica, sight.table)
        return
    for replica in range(len(state.replicas)):
        seen = look(sim, replica)
        write_column(seen.replica, replica, sight.table)
        write_column(seen.predicted, replica, sight.predicted)
        _see_queue(sim, replica, sight.queues[replica])
    request = _look_at_request(sim)
    sight.request[Arriving.PROMPT_TOKENS] = request.prompt_tokens
    sight.request[Arriving.EXPECTED_OUTPUT_TOKENS] = request.expected_output_tokens
    sight.request[Arriving.OUTPUT_TOKENS] = request.output_tokens
