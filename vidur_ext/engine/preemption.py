"""Compiled: KV blocks for the next round of decoding, and whom a shortage sends back."""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from vidur_ext.engine.layout import NEVER, Held, Prefixes, Replica, Request, Simulation, Text
from vidur_ext.engine.queues import push_front


@compiled
def _count_decoding(prefixes: Prefixes | None, replica: int, request: int, more: int) -> None:
    """Count who decodes along a line, if lines matter."""
    if prefixes is None:
        return
    if prefixes.lines.shape[1]:
        prefixes.lines[replica, prefixes.texts[request, Text.LINE], Held.DECODING] += more


@compiled
def start_decoding(sim: Simulation, replica: int, request: int, done: int) -> None:
    """Count a request whose prompt is done among the decoding ones, at the end of a round."""
    state = sim.state
    row = state.replicas[replica]
    offset = done - row[Replica.ROUNDS]
    state.requests[request, Request.DONE] = offset
    row[Replica.DECODING] += 1
    row[Replica.OFFSETS] += offset
    row[Replica.GENERATED] += offset - state.requests[request, Request.PROMPT]
    row[Replica.NEXT_FINISH] = min(
        row[Replica.NEXT_FINISH], state.requests[request, Request.TOTAL] - offset
    )
    state.phases[replica, (1 - offset) % sim.settings.block_size] += 1
    _count_decoding(state.prefixes, replica, request, 1)


@compiled
def stop_decoding(sim: Simulation, replica: int, request: int) -> None:
    """Take a request out of the decoding ones; its blocks and its slot are the caller's."""
    state = sim.state
    row = state.replicas[replica]
    offset = state.requests[request, Request.DONE]
    row[Replica.DECODING] -= 1
    row[Replica.OFFSETS] -= offset
    row[Replica.GENERATED] -= offset - state.requests[request, Request.PROMPT]
    state.phases[replica, (1 - offset) % sim.settings.block_size] -= 1
    _count_decoding(state.prefixes, replica, request, -1)


@compiled
def restart(sim: Simulation, replica: int, request: int, partial: bool, prompt: int) -> None:
    """Give up a request's progress and let it wait first, with another prompt.

    Its blocks and its slot are the caller's.
    """
    state = sim.state
    row = state.replicas[replica]
    if partial:
        done = state.requests[request, Request.DONE]
        row[Replica.PENDING] -= state.requests[request, Request.PROMPT] - done
        row[Replica.PARTIAL_DONE] -= done
    else:
        stop_decoding(sim, replica, request)
    state.requests[request, Request.PROMPT] = prompt
    state.requests[request, Request.DONE] = 0
    state.requests[request, Request.RESTARTS] += 1
    row[Replica.RESTARTED] += 1
    row[Replica.PENDING] += prompt
    push_front(state, replica, request)


@compiled
def _give_up(sim: Simulation, replica: int, request: int, partial: bool) -> None:
    """Send a request back as Vidur does: its tokens so far, of prompt and answer, are its prompt.

    A prompt has its blocks from the beginning.
    """
    state, block_size = sim.state, sim.settings.block_size
    row = state.replicas[replica]
    done = state.requests[request, Request.DONE]
    if partial:
        row[Replica.FREE] += -(-state.requests[request, Request.PROMPT] // block_size)
    else:
        done += row[Replica.ROUNDS]
        row[Replica.FREE] += -(-(done - 1) // block_size)
    restart(sim, replica, request, partial, done)


@compiled
def take_blocks(sim: Simulation, replica: int) -> bool:
    """Allocate what the decoding requests need for one round; return whether some were restarted.

    Vidur asks for a free block before each request, whether it needs one or not. With enough of
    them for all, that is one subtraction.
    """
    state = sim.state
    row = state.replicas[replica]
    if row[Replica.DECODING] == 0:
        return False
    needed = state.phases[replica, row[Replica.ROUNDS] % sim.settings.block_size]
    if row[Replica.FREE] - needed >= 1:
        row[Replica.FREE] -= needed
        return False
    return _take_scarce_blocks(sim, replica)


@compiled
def _take_scarce_blocks(sim: Simulation, replica: int) -> bool:
    """Do it one by one: front to back, with victims from the back, a begun prompt first."""
    state = sim.state
    row = state.replicas[replica]
    members = state.members[replica]
    block_size = sim.settings.block_size
    # The last to go is the request at the front itself: then nobody is after it.
    front, back = 0, row[Replica.MEMBERS]
    restarted = False
    while front < back - row[Replica.PARTIAL]:
        request = members[front]
        while row[Replica.FREE] < 1 and front < back:
            back -= 1
            _give_up(sim, replica, members[back], row[Replica.PARTIAL] == 1)
            row[Replica.PARTIAL] = 0
            restarted = True
        if front < back:
            if (
                state.requests[request, Request.DONE] + row[Replica.ROUNDS]
            ) % block_size == 1 % block_size:
                row[Replica.FREE] -= 1
            front += 1
    row[Replica.MEMBERS] = back
    if restarted:
        find_next_finish(sim, replica)
    return restarted


@compiled
def find_next_finish(sim: Simulation, replica: int) -> None:
    """Set NEXT_FINISH from the decoding requests."""
    state = sim.state
    row = state.replicas[replica]
    earliest = NEVER
    for slot in range(row[Replica.DECODING]):
        request = state.members[replica, slot]
        earliest = min(
            earliest, state.requests[request, Request.TOTAL] - state.requests[request, Request.DONE]
        )
    row[Replica.NEXT_FINISH] = earliest
