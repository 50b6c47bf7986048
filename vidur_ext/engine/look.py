"""Compiled: a simulation as its router sees it. What a heuristic does not read costs nothing.

The replicas are seen in the state ``View.seen``. What was dispatched since then the router knows of
itself, and takes for waiting; its ages are those of now, the others those of the state.
"""

from __future__ import annotations

from typing import Any

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.engine.closed_loops import arriving, request_at
from vidur_ext.engine.expectations import (
    found_tokens,
    in_use_tokens,
    offered_tokens,
    spared_tokens,
)
from vidur_ext.engine.layout import (
    Counter,
    EngineState,
    InSession,
    Own,
    Replica,
    Request,
    Since,
    Time,
    View,
)
from vidur_ext.routing.components import RewardRule
from vidur_ext.routing.estimator import expected_output_tokens, predict
from vidur_ext.routing.view import (
    Elapsed,
    Queued,
    Seen,
    SeenReplica,
    SeenRequest,
    Sight,
    write_column,
    write_entries,
)

_expected_output_tokens = compiled(expected_output_tokens)


@compiled
def _dispatched_since(view: View, replica: int) -> tuple[int, int, int, int]:
    """Return the requests that a replica got after what is seen of it, their prompts, their
    outputs, and what was expected to be found of the prompts.

    Their rows are read in the state that is seen, in which nothing has happened to them yet.
    """
    count = prompts = outputs = found = 0
    state = view.sim.state
    for decision in range(view.seen.counters[Counter.ARRIVALS], state.counters[Counter.ARRIVALS]):
        request = request_at(state.loops, decision)
        if view.sim.state.requests[request, Request.REPLICA] == replica:
            count += 1
            prompts += view.seen.requests[request, Request.PROMPT]
            outputs += view.seen.requests[request, Request.OUTPUT]
            found += found_tokens(view.sim.state.expected, request)
    return count, prompts, outputs, found


@compiled
def waiting_requests(view: View, replica: int) -> int:
    """Return how many requests wait on a replica."""
    return int(view.seen.replicas[replica, Replica.WAITING] + _dispatched_since(view, replica)[0])


@compiled
def _waits(view: View, replica: int) -> tuple[float, float]:
    """Return how long the oldest waiting request and all of them on average have waited [s]."""
    state, seen, arrived = view.sim.state, view.seen, view.sim.state.arrived
    request, waiting = seen.replicas[replica, Replica.HEAD], seen.replicas[replica, Replica.WAITING]
    oldest = total = 0.0
    for _ in range(waiting):
        age = seen.now[0] - arrived[request]
        oldest = max(oldest, age)
        total += age
        request = seen.requests[request, Request.NEXT]
    for decision in range(seen.counters[Counter.ARRIVALS], state.counters[Counter.ARRIVALS]):
        request = request_at(state.loops, decision)
        if state.requests[request, Request.REPLICA] == replica:
            age = state.now[0] - arrived[request]
            oldest = max(oldest, age)
            total += age
            waiting += 1
    return oldest, total / waiting if waiting else 0.0


@compiled
def _look_at_replica(view: View, replica: int) -> Any:
    """Return the ``SeenReplica``: every quantity, as the engine's state tells it."""
    settings, row = view.sim.settings, view.seen.replicas[replica]
    decoded = row[Replica.DECODING] * row[Replica.ROUNDS]
    context = row[Replica.OFFSETS] + decoded + row[Replica.PARTIAL_DONE]
    blocks = settings.own[replica, Own.BLOCKS]
    oldest_wait_s, mean_wait_s = _waits(view, replica)
    count, prompts, outputs, found = _dispatched_since(view, replica)
    return SeenReplica(
        waiting=float(row[Replica.WAITING] + count),
        running=float(row[Replica.MEMBERS]),
        decoding=float(row[Replica.DECODING]),
        pending_prefill_tokens=float(row[Replica.PENDING] + prompts),
        uncached_prefill_tokens=float(
            row[Replica.PENDING] - spared_tokens(view.seen.expected, replica) + prompts - found
        ),
        context_tokens=float(context),
        generated_tokens=float(row[Replica.GENERATED] + decoded),
        kv_blocks_used=float(blocks - row[Replica.FREE]),
        kv_blocks_total=float(blocks),
        restarts=float(row[Replica.RESTARTED]),
        oldest_wait_s=oldest_wait_s,
        mean_wait_s=mean_wait_s,
        batch_capacity=settings.batch_capacity,
        remaining_output_tokens=float(
            row[Replica.TOKENS] - context - row[Replica.PENDING] + outputs
        ),
    )


@compiled
def _look_at_request(view: View) -> Any:
    """Return the ``SeenRequest`` of the next request."""
    sim, counters = view.sim, view.seen.counters
    row = arriving(sim)
    request, own = sim.state.requests[row], sim.inputs.sessions[row]
    before = own[InSession.BEFORE]
    return SeenRequest(
        prompt_tokens=float(request[Request.PROMPT]),
        expected_output_tokens=_expected_output_tokens(
            sim.estimates, counters[Counter.FINISHED], counters[Counter.FINISHED_OUTPUT]
        ),
        output_tokens=float(request[Request.OUTPUT]),
        session=float(own[InSession.SESSION]),
        session_replica=float(sim.state.requests[before, Request.REPLICA] if before >= 0 else -1),
    )


@compiled
def look(view: View, replica: int) -> Seen:
    """Return what is seen of a replica when the next request waits to be routed."""
    seen, request = _look_at_replica(view, replica), _look_at_request(view)
    expected = view.sim.state.expected
    found = float(offered_tokens(expected, replica))
    in_use = float(in_use_tokens(expected, replica))
    return Seen(seen, predict(view.sim.estimates, replica, seen, request, found, in_use), request)


@compiled
def _next_on(state: EngineState, replica: int, decision: int) -> int:
    """Return the first decision from ``decision`` on that was for a replica, else ARRIVALS."""
    while (
        decision < state.counters[Counter.ARRIVALS]
        and state.requests[request_at(state.loops, decision), Request.REPLICA] != replica
    ):
        decision += 1
    return decision


@compiled
def _see_queue(view: View, replica: int, queue: Floats) -> None:
    """Write the first waiting requests of a replica [K, len(Queued)]; the absent ones are zeros."""
    state, seen, arrived = view.sim.state, view.seen, view.sim.state.arrived
    request, waiting = seen.replicas[replica, Replica.HEAD], seen.replicas[replica, Replica.WAITING]
    since = seen.counters[Counter.ARRIVALS]
    for position in range(len(queue)):
        entry = queue[position]
        entry[:] = 0.0
        if position < waiting:
            entry[Queued.AGE_S] = seen.now[0] - arrived[request]
            entry[Queued.PROMPT_TOKENS] = seen.requests[request, Request.PROMPT]
            request = seen.requests[request, Request.NEXT]
            continue
        since = _next_on(state, replica, since)
        if since < state.counters[Counter.ARRIVALS]:
            dispatched = request_at(state.loops, since)
            entry[Queued.AGE_S] = state.now[0] - arrived[dispatched]
            entry[Queued.PROMPT_TOKENS] = seen.requests[dispatched, Request.PROMPT]
            since += 1


@compiled
def _see_completions(view: View, rule: RewardRule, interval: Floats) -> None:
    """Add up the completed requests that were not seen at the last decision."""
    state, arrived = view.seen, view.sim.state.arrived
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
def _see_interval(view: View, rule: RewardRule, interval: Floats) -> None:
    """Write what happened between the last decision and the present instant.

    No request arrives between two decisions: all that are here have been since the last one.
    """
    state = view.sim.state
    decided = state.counters[Counter.ARRIVALS]
    last = request_at(state.loops, decided - 1) if decided else 0
    duration = state.now[0] - state.arrived[last] if decided else 0.0
    alive = 0
    for replica in range(len(state.replicas)):
        alive += state.replicas[replica, Replica.WAITING] + state.replicas[replica, Replica.MEMBERS]
    unanswered = state.counters[Counter.UNANSWERED]
    interval[:] = 0.0
    interval[Elapsed.DURATION_S] = duration
    interval[Elapsed.REQUEST_SECONDS] = state.since[Since.COMPLETED_AFTER] + alive * duration
    interval[Elapsed.UNANSWERED_SECONDS] = state.since[Since.ANSWERED_AFTER] + unanswered * duration
    _see_completions(view, rule, interval)


@compiled
def see(view: View, rule: RewardRule, sight: Sight) -> None:
    """Write all that is seen when the next request waits for its replica, or at the very end."""
    state = view.sim.state
    _see_interval(view, rule, sight.interval)
    if state.counters[Counter.ARRIVALS] == len(state.requests):
        for replica in range(len(state.replicas)):
            write_column(_look_at_replica(view, replica), replica, sight.table)
        return
    for replica in range(len(state.replicas)):
        seen = look(view, replica)
        write_column(seen.replica, replica, sight.table)
        write_column(seen.predicted, replica, sight.predicted)
        _see_queue(view, replica, sight.queues[replica])
    write_entries(_look_at_request(view), sight.request)
