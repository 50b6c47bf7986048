"""Compiled: simulated time. Between two arrivals the replicas do not touch each other."""

from __future__ import annotations

import numpy as np

from ppo_scheduler.compiled import compiled, compiled_entry
from vidur_ext.engine.batch_end import end_batch
from vidur_ext.engine.batch_start import start_batch
from vidur_ext.engine.closed_loops import arriving, has_waited, next_arrival, take
from vidur_ext.engine.execution import OUTSIDE, steady_iteration_s
from vidur_ext.engine.expectations import expect, look_up
from vidur_ext.engine.layout import (
    Batching,
    Clock,
    Counter,
    Replica,
    Request,
    Simulation,
    Turns,
    sees_late,
)
from vidur_ext.engine.queues import push_back
from vidur_ext.engine.routing import route

_sees_late = compiled(sees_late)

AT_END = -1
"""What ``advance`` returns when there is nothing left to simulate."""


@compiled
def _next_batch(sim: Simulation, replica: int, now: float, attempts: int) -> None:
    """Try to start a batch as often as Vidur does at this instant.

    Vidur schedules a replica once for the end of a stage, once for the end of the batch, and once
    for arrivals. It matters where an attempt only preempts.
    """
    for _ in range(attempts):
        if start_batch(sim, replica, now):
            return
    sim.state.clocks[replica, Clock.BATCH_END] = np.inf


@compiled
def _repeat_steady_batch(sim: Simulation, replica: int, until: float) -> None:
    """End and start the same batch again until ``until``, or until anything could differ."""
    state, settings = sim.state, sim.settings
    row = state.replicas[replica]
    end, duration = state.clocks[replica, Clock.BATCH_END], state.clocks[replica, Clock.ITERATION]
    last_round = row[Replica.NEXT_FINISH] - 1
    rounds, free, room = row[Replica.ROUNDS], row[Replica.FREE], row[Replica.ROOM]
    # Vidur wants a free block for whoever decodes, Orca has taken all of them before.
    takes = 0 if settings.scheduler == Batching.ORCA else 1
    reserve = 1 if settings.scheduler in (Batching.SARATHI, Batching.VLLM) else 0
    phase = rounds % settings.block_size
    while end < until and rounds < last_round:
        phase += 1
        if phase == settings.block_size:
            phase = 0
        needed = state.phases[replica, phase] * takes
        if free - needed < reserve:
            break
        free -= needed
        rounds += 1
        room -= 1
        if room < 0:
            row[Replica.ROUNDS] = rounds
            duration = steady_iteration_s(sim, replica)
            room = row[Replica.ROOM]
            if duration == OUTSIDE:
                state.counters[Counter.OVERFLOW] = replica + 1
                break
        end += duration
    row[Replica.ROUNDS], row[Replica.FREE], row[Replica.ROOM] = rounds, free, room
    state.clocks[replica, Clock.BATCH_END] = end
    state.clocks[replica, Clock.ITERATION] = duration


@compiled
def run_batch(sim: Simulation, replica: int, until: float) -> None:
    """Run a replica's batch to its end and start the next one; a steady one is run repeatedly.

    It must end before ``until`` [s]; no repetition does that does not.
    """
    clocks = sim.state.clocks
    if sim.state.replicas[replica, Replica.STEADY]:
        _repeat_steady_batch(sim, replica, until)
        if clocks[replica, Clock.BATCH_END] >= until or sim.state.counters[Counter.OVERFLOW]:
            return
    now = clocks[replica, Clock.BATCH_END]
    end_batch(sim, replica, now)
    _next_batch(sim, replica, now, 2)


@compiled
def _run_replica(sim: Simulation, replica: int, until: float) -> None:
    """Run a replica's batches that end before ``until``."""
    state = sim.state
    while state.clocks[replica, Clock.BATCH_END] < until and not state.counters[Counter.OVERFLOW]:
        run_batch(sim, replica, until)


@compiled
def close_instant(sim: Simulation) -> None:
    """Let the replicas look at what was routed to them; arrivals go before batches that end now."""
    state = sim.state
    if not state.counters[Counter.OPEN]:
        return
    now = state.now[0]
    for replica in range(len(state.replicas)):
        if not state.replicas[replica, Replica.ROUTED]:
            continue
        state.replicas[replica, Replica.ROUTED] = 0
        end = state.clocks[replica, Clock.BATCH_END]
        if end == now:
            end_batch(sim, replica, now)
        if end == now or end == np.inf:
            _next_batch(sim, replica, now, 3 if end == now else 1)
    state.counters[Counter.OPEN] = 0


@compiled
def run_until(sim: Simulation, until: float) -> None:
    """End every replica's batches that end before ``until`` [s], at most the next arrival."""
    close_instant(sim)
    for replica in range(len(sim.state.replicas)):
        _run_replica(sim, replica, until)


@compiled
def _earliest_answer(sim: Simulation, replica: int) -> float:
    """Return a time [s] before which a replica completes no request.

    A steady batch is the same until its next request is done, the cache is full or the tables say
    that it takes another time; rounding of its sums is allowed for.
    """
    state = sim.state
    row, end = state.replicas[replica], state.clocks[replica, Clock.BATCH_END]
    if not row[Replica.STEADY]:
        return float(end)
    rounds = min(row[Replica.NEXT_FINISH] - row[Replica.ROUNDS] - 1, row[Replica.ROOM])
    fitting = (row[Replica.FREE] - 1) // row[Replica.DECODING] * sim.settings.block_size
    rounds = max(0, min(rounds, fitting))
    return float(end + rounds * state.clocks[replica, Clock.ITERATION] * (1.0 - 1e-9))


@compiled
def _run_to_arrival(turns: Turns | None, sim: Simulation) -> float:
    """Simulate up to the next arrival; return its time [s], infinite without one."""
    state = sim.state
    if turns is None:
        request = state.counters[Counter.ARRIVALS]
        until = state.arrived[request] if request < len(state.arrived) else np.inf
        if state.counters[Counter.LAST]:
            run_until(sim, np.nextafter(until, np.inf))
        elif until > state.now[0]:
            run_until(sim, until)
        return float(until)
    return _run_loops(sim)


@compiled
def _run_loops(sim: Simulation) -> float:
    """Do so where completions bring about arrivals.

    Nothing runs past the first completion that there could be: then whoever it lets go on is known.
    A turn that has waited for an answer comes after the batches that end at its instant.
    """
    state = sim.state
    replicas = len(state.replicas)
    while True:
        request, until = next_arrival(sim)
        waited = request >= 0 and has_waited(sim.inputs.turns, request)
        if until > state.now[0] or waited:
            close_instant(sim)
        limit = np.nextafter(until, np.inf) if waited else until
        first, horizon = 0, limit
        for replica in range(replicas):
            horizon = min(horizon, _earliest_answer(sim, replica))
            if state.clocks[replica, Clock.BATCH_END] < state.clocks[first, Clock.BATCH_END]:
                first = replica
        end = state.clocks[first, Clock.BATCH_END]
        if end >= limit or state.counters[Counter.OVERFLOW]:
            return until
        start, stop = 0, replicas
        if horizon <= end:
            start, stop, horizon = first, first + 1, np.nextafter(end, np.inf)
        for replica in range(start, stop):
            _run_replica(sim, replica, horizon)


@compiled
def assign_one(sim: Simulation, replica: int) -> None:
    """Queue the next request at a replica."""
    request = arriving(sim)
    take(sim, request)
    assign_row(sim, request, replica)


@compiled
def assign_row(sim: Simulation, request: int, replica: int) -> None:
    """Queue a request, the next one of those that arrive, at a replica."""
    state = sim.state
    row = state.replicas[replica]
    if row[Replica.WAITING] == 0:
        row[Replica.STEADY] = 0
    push_back(state, replica, request)
    row[Replica.PENDING] += state.requests[request, Request.PROMPT]
    row[Replica.TOKENS] += state.requests[request, Request.TOTAL]
    row[Replica.ROUTED] = 1
    expect(sim, request, replica)
    state.requests[request, Request.REPLICA] = replica
    state.counters[Counter.OPEN] = 1
    state.counters[Counter.ARRIVALS] += 1
    state.counters[Counter.UNANSWERED] += 1
    state.counters[Counter.SEEN] = state.counters[Counter.FINISHED]
    state.since[:] = 0.0


@compiled
def advance_one(sim: Simulation) -> int:
    """Simulate up to the next decision that is the caller's.

    Returns the index of the request to be routed, or AT_END when all that can be served has been
    or a batch exceeded the tables.
    """
    state = sim.state
    while state.counters[Counter.OVERFLOW] == 0:
        until = _run_to_arrival(sim.inputs.turns, sim)
        if until == np.inf:
            break
        state.now[0] = until
        if not _sees_late(sim.settings):
            look_up(sim, state)
        replica = route(sim)
        if replica < 0:
            return arriving(sim)
        assign_one(sim, replica)
    return AT_END


@compiled_entry
def advance(sim: Simulation) -> int:
    """See ``advance_one``."""
    return advance_one(sim)


@compiled_entry
def assign(sim: Simulation, replica: int) -> None:
    """Route the request that ``advance`` returned."""
    assign_one(sim, replica)
