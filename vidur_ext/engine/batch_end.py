"""Compiled: what the end of a batch does to its requests."""

from __future__ import annotations

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    ANSWERED_AFTER,
    COMPLETED,
    COMPLETED_AFTER,
    DECODES,
    DECODING,
    DONE,
    FINISHED,
    FINISHED_OUTPUT,
    FREE,
    MEMBERS,
    NEXT_FINISH,
    ORCA,
    OUTPUT,
    PARTIAL,
    PARTIAL_DONE,
    PENDING,
    PREFILLED,
    PROMPT,
    RESTARTED,
    RESTARTS,
    ROUNDS,
    TOKENS,
    TOTAL,
    UNANSWERED,
    Simulation,
)
from vidur_ext.engine.preemption import find_next_finish, start_decoding, stop_decoding

_GONE, _DECODING, _UNFINISHED = range(3)


@compiled
def _complete(sim: Simulation, replica: int, request: int, now: float) -> None:
    """Let a request leave: its last token needed no block of its own."""
    settings, state = sim.settings, sim.state
    row = state.replicas[replica]
    total = state.requests[request, TOTAL]
    if settings.scheduler == ORCA:
        row[FREE] += settings.flat_blocks
    else:
        row[FREE] += -(-(total - 1) // settings.block_size)
    row[TOKENS] -= total
    state.times[request, COMPLETED] = now
    state.requests[request, DONE] = total
    row[RESTARTED] -= state.requests[request, RESTARTS]
    state.since[COMPLETED_AFTER] += now - state.now[0]
    state.completions[state.counters[FINISHED]] = request
    state.counters[FINISHED] += 1
    state.counters[FINISHED_OUTPUT] += state.requests[request, OUTPUT]


@compiled
def _complete_decoding(sim: Simulation, replica: int, now: float) -> int:
    """Complete the decoding requests that are due; return the slot behind those left."""
    state = sim.state
    row = state.replicas[replica]
    kept = 0
    for slot in range(row[DECODING]):
        request = state.members[replica, slot]
        if state.requests[request, DONE] + row[ROUNDS] == state.requests[request, TOTAL]:
            stop_decoding(sim, replica, request)
            _complete(sim, replica, request, now)
        else:
            state.members[replica, kept] = request
            kept += 1
    find_next_finish(sim, replica)
    return kept


@compiled
def _advance_prompt(sim: Simulation, replica: int, slot: int, now: float) -> int:
    """Count a chunk, and the first output token behind the last one; return what became of it."""
    state = sim.state
    row = state.replicas[replica]
    request = state.members[replica, slot]
    chunk = state.chunks[replica, slot]
    before = state.requests[request, DONE]
    done = before + chunk
    row[PENDING] -= chunk
    if done < state.requests[request, PROMPT]:
        row[PARTIAL_DONE] += chunk
        state.requests[request, DONE] = done
        return _UNFINISHED
    row[PARTIAL_DONE] -= before
    if state.times[request, PREFILLED] == 0.0:
        state.times[request, PREFILLED] = now
        state.since[ANSWERED_AFTER] += now - state.now[0]
        state.counters[UNANSWERED] -= 1
    if done + 1 == state.requests[request, TOTAL]:
        _complete(sim, replica, request, now)
        return _GONE
    start_decoding(sim, replica, request, done + 1)
    return _DECODING


@compiled
def end_batch(sim: Simulation, replica: int, now: float) -> None:
    """Advance the requests of the batch that ends ``now``; the completed ones leave."""
    state = sim.state
    row = state.replicas[replica]
    first_chunk = row[DECODING]
    kept = first_chunk
    if row[DECODES]:
        row[ROUNDS] += 1
        if row[ROUNDS] == row[NEXT_FINISH]:
            kept = _complete_decoding(sim, replica, now)
    row[PARTIAL] = 0
    for slot in range(first_chunk, row[MEMBERS]):
        outcome = _advance_prompt(sim, replica, slot, now)
        if outcome == _GONE:
            continue
        if outcome == _UNFINISHED:
            row[PARTIAL] = 1
        state.members[replica, kept] = state.members[replica, slot]
        kept += 1
    row[MEMBERS] = kept
