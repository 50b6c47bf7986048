"""Compiled: what the end of a batch does to its requests.

Times are those at which a user sees them: a request's own overhead comes after the batch.
"""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from vidur_ext.engine.closed_loops import answer
from vidur_ext.engine.layout import (
    Batching,
    Counter,
    Own,
    Prefixes,
    Replica,
    Request,
    Simulation,
    Since,
    Time,
)
from vidur_ext.engine.preemption import find_next_finish, start_decoding, stop_decoding
from vidur_ext.engine.vllm_v1 import give_back

_GONE, _DECODING, _UNFINISHED = range(3)


@compiled
def _give_back(
    prefixes: Prefixes | None, sim: Simulation, replica: int, request: int, computed: int
) -> None:
    """See ``give_back``; without its arrays it is not compiled."""
    if prefixes is not None:
        give_back(sim, replica, request, computed)


@compiled
def _complete(sim: Simulation, replica: int, request: int, now: float) -> None:
    """Let a request leave: its last token needed no block of its own."""
    settings, state = sim.settings, sim.state
    row = state.replicas[replica]
    total = state.requests[request, Request.TOTAL]
    if settings.scheduler == Batching.VLLM_V1:
        _give_back(state.prefixes, sim, replica, request, total - 1)
    elif settings.scheduler == Batching.ORCA:
        row[Replica.FREE] += settings.flat_blocks
    else:
        row[Replica.FREE] += -(-(total - 1) // settings.block_size)
    row[Replica.TOKENS] -= total
    seen = now + sim.tables.request_s[settings.own[replica, Own.KIND]]
    state.times[request, Time.COMPLETED] = seen
    state.requests[request, Request.DONE] = total
    row[Replica.RESTARTED] -= state.requests[request, Request.RESTARTS]
    state.since[Since.COMPLETED_AFTER] += seen - state.now[0]
    answer(sim.inputs.turns, state.loops, state.arrived, request, seen)
    state.completions[state.counters[Counter.FINISHED]] = request
    state.counters[Counter.FINISHED] += 1
    state.counters[Counter.FINISHED_OUTPUT] += state.requests[request, Request.OUTPUT]


@compiled
def _complete_decoding(sim: Simulation, replica: int, now: float) -> int:
    """Complete the decoding requests that are due; return the slot after those left."""
    state = sim.state
    row = state.replicas[replica]
    kept = 0
    for slot in range(row[Replica.DECODING]):
        request = state.members[replica, slot]
        if (
            state.requests[request, Request.DONE] + row[Replica.ROUNDS]
            == state.requests[request, Request.TOTAL]
        ):
            stop_decoding(sim, replica, request)
            _complete(sim, replica, request, now)
        else:
            state.members[replica, kept] = request
            kept += 1
    find_next_finish(sim, replica)
    return kept


@compiled
def _advance_prompt(sim: Simulation, replica: int, slot: int, now: float) -> int:
    """Count a chunk, and the first output token after the last one; return what became of it."""
    state = sim.state
    row = state.replicas[replica]
    request = state.members[replica, slot]
    chunk = state.chunks[replica, slot]
    before = state.requests[request, Request.DONE]
    done = before + chunk
    row[Replica.PENDING] -= chunk
    if done < state.requests[request, Request.PROMPT]:
        row[Replica.PARTIAL_DONE] += chunk
        state.requests[request, Request.DONE] = done
        return _UNFINISHED
    row[Replica.PARTIAL_DONE] -= before
    if state.times[request, Time.PREFILLED] == 0.0:
        seen = now + sim.tables.request_s[sim.settings.own[replica, Own.KIND]]
        state.times[request, Time.PREFILLED] = seen
        state.since[Since.ANSWERED_AFTER] += seen - state.now[0]
        state.counters[Counter.UNANSWERED] -= 1
    if done + 1 == state.requests[request, Request.TOTAL]:
        _complete(sim, replica, request, now)
        return _GONE
    start_decoding(sim, replica, request, done + 1)
    return _DECODING


@compiled
def end_batch(sim: Simulation, replica: int, now: float) -> None:
    """Advance the requests of the batch that ends ``now``; the completed ones leave."""
    state = sim.state
    row = state.replicas[replica]
    first_chunk = row[Replica.DECODING]
    kept = first_chunk
    if row[Replica.DECODES]:
        row[Replica.ROUNDS] += 1
        if row[Replica.ROUNDS] == row[Replica.NEXT_FINISH]:
            kept = _complete_decoding(sim, replica, now)
    row[Replica.PARTIAL] = 0
    for slot in range(first_chunk, row[Replica.MEMBERS]):
        outcome = _advance_prompt(sim, replica, slot, now)
        if outcome == _GONE:
            continue
        if outcome == _UNFINISHED:
            row[Replica.PARTIAL] = 1
        state.members[replica, kept] = state.members[replica, slot]
        kept += 1
    row[Replica.MEMBERS] = kept
