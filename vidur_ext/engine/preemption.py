"""Compiled: KV blocks for the next round of decoding, and whom a shortage sends back."""

from __future__ import annotations

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    DECODING,
    DONE,
    FREE,
    GENERATED,
    MEMBERS,
    NEVER,
    NEXT_FINISH,
    OFFSETS,
    PARTIAL,
    PARTIAL_DONE,
    PENDING,
    PROMPT,
    RESTARTED,
    RESTARTS,
    ROUNDS,
    TOTAL,
    Simulation,
)
from vidur_ext.engine.queues import push_front


@compiled
def start_decoding(sim: Simulation, replica: int, request: int, done: int) -> None:
    """Count a request whose prompt is done among the decoding ones, at the end of a round."""
    state = sim.state
    row = state.replicas[replica]
    offset = done - row[ROUNDS]
    state.requests[request, DONE] = offset
    row[DECODING] += 1
    row[OFFSETS] += offset
    row[GENERATED] += offset - state.requests[request, PROMPT]
    row[NEXT_FINISH] = min(row[NEXT_FINISH], state.requests[request, TOTAL] - offset)
    state.phases[replica, (1 - offset) % sim.settings.block_size] += 1


@compiled
def stop_decoding(sim: Simulation, replica: int, request: int) -> None:
    """Take a request out of the decoding ones; its blocks and its slot are the caller's."""
    state = sim.state
    row = state.replicas[replica]
    offset = state.requests[request, DONE]
    row[DECODING] -= 1
    row[OFFSETS] -= offset
    row[GENERATED] -= offset - state.requests[request, PROMPT]
    state.phases[replica, (1 - offset) % sim.settings.block_size] -= 1


@compiled
def _restart(sim: Simulation, replica: int, request: int, partial: bool) -> None:
    """Give up a request's progress and let it wait first; its tokens so far become its prompt."""
    state = sim.state
    row = state.replicas[replica]
    block_size = sim.settings.block_size
    done = state.requests[request, DONE]
    if partial:
        prompt = state.requests[request, PROMPT]
        row[FREE] += -(-prompt // block_size)
        row[PENDING] -= prompt - done
        row[PARTIAL_DONE] -= done
    else:
        done += row[ROUNDS]
        row[FREE] += -(-(done - 1) // block_size)
        stop_decoding(sim, replica, request)
    state.requests[request, PROMPT] = done
    state.requests[request, DONE] = 0
    state.requests[request, RESTARTS] += 1
    row[RESTARTED] += 1
    row[PENDING] += done
    push_front(state, replica, request)


@compiled
def take_blocks(sim: Simulation, replica: int) -> bool:
    """Allocate what the decoding requests need for one round; return whether some were restarted.

    Vidur asks for a free block before each request, whether it needs one or not. With enough of
    them for all, that is one subtraction.
    """
    state = sim.state
    row = state.replicas[replica]
    if row[DECODING] == 0:
        return False
    needed = state.phases[replica, row[ROUNDS] % sim.settings.block_size]
    if row[FREE] - needed >= 1:
        row[FREE] -= needed
        return False
    return _take_scarce_blocks(sim, replica)


@compiled
def _take_scarce_blocks(sim: Simulation, replica: int) -> bool:
    """Do it one by one: front to back, with victims from the back, a begun prompt first."""
    state = sim.state
    row = state.replicas[replica]
    members = state.members[replica]
    block_size = sim.settings.block_size
    # The last to go is the request at the front itself: then nobody is behind it.
    front, back = 0, row[MEMBERS]
    restarted = False
    while front < back - row[PARTIAL]:
        request = members[front]
        while row[FREE] < 1 and front < back:
            back -= 1
            _restart(sim, replica, members[back], row[PARTIAL] == 1)
            row[PARTIAL] = 0
            restarted = True
        if front < back:
            if (state.requests[request, DONE] + row[ROUNDS]) % block_size == 1 % block_size:
                row[FREE] -= 1
            front += 1
    row[MEMBERS] = back
    if restarted:
        find_next_finish(sim, replica)
    return restarted


@compiled
def find_next_finish(sim: Simulation, replica: int) -> None:
    """Set NEXT_FINISH from the decoding requests."""
    state = sim.state
    row = state.replicas[replica]
    earliest = NEVER
    for slot in range(row[DECODING]):
        request = state.members[replica, slot]
        earliest = min(earliest, state.requests[request, TOTAL] - state.requests[request, DONE])
    row[NEXT_FINISH] = earliest
