"""Compiled: which request arrives next where some wait for the answers to others.

Requests that wait for nobody arrive in the order of their rows. The others are known from the
completion on that they wait for, and stand in a heap by their arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppo_scheduler.observation import Floats
from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    Counter,
    Ints,
    Loop,
    Loops,
    Simulation,
    Turns,
)
from vidur_ext.workload.request_table import RequestTable


def turns_of(table: RequestTable) -> Turns | None:
    """Return which requests of a table wait for which; None if none does."""
    if not table.waits:
        return None
    assert table.sessions is not None
    previous = table.sessions.previous
    following = np.full(len(table), -1, dtype=np.int64)
    waiting = np.flatnonzero(previous >= 0)
    following[previous[waiting]] = waiting
    return Turns(previous, following, table.sessions.think_s)


def stacked_turns(tables: Sequence[RequestTable]) -> Turns | None:
    """Return those of tables [B] of one length; None if no request of any of them waits."""
    each = [turns_of(table) for table in tables]
    if not any(each):
        return None
    nobody = np.full(len(tables[0]), -1, dtype=np.int64)
    alone = Turns(nobody, nobody, np.zeros(len(nobody)))
    return Turns(*map(np.stack, zip(*(turns or alone for turns in each), strict=True)))


@compiled
def request_at(loops: Loops | None, decision: int) -> int:
    """Return the request that arrived as the ``decision``-th one, from 0."""
    if loops is None:
        return decision
    return int(loops.order[decision])


@compiled
def arriving(sim: Simulation) -> int:
    """Return the request that waits to be routed."""
    return request_at(sim.state.loops, sim.state.counters[Counter.ARRIVALS])


@compiled
def has_waited(turns: Turns | None, request: int) -> bool:
    """Return whether a request arrives because another one was answered."""
    if turns is None:
        return False
    return bool(turns.previous[request] >= 0)


@compiled
def answer(
    turns: Turns | None, loops: Loops | None, arrived: Floats, request: int, now: float
) -> None:
    """Let the request be known that waits for the answer to this one."""
    if turns is None or loops is None:
        return
    turn = turns.next[request]
    if turn >= 0:
        arrived[turn] = now + turns.think_s[turn]
        _push(loops, arrived, turn)


@compiled
def next_arrival(sim: Simulation) -> tuple[int, float]:
    """Return the next request among those known, and when it arrives; -1 and infinity without one.

    It is noted in ``Loops.order``. Of simultaneous ones those come first that have not waited.
    """
    state, loops = sim.state, sim.state.loops
    assert loops is not None
    request, time = -1, np.inf
    fresh = loops.counters[Loop.FRESH]
    if fresh < len(state.arrived):
        request, time = fresh, state.arrived[fresh]
    if loops.counters[Loop.KNOWN] > 0 and state.arrived[loops.known[0]] < time:
        request, time = loops.known[0], state.arrived[loops.known[0]]
    if request >= 0:
        loops.order[state.counters[Counter.ARRIVALS]] = request
    return int(request), float(time)


@compiled
def take(sim: Simulation, request: int) -> None:
    """Let the next request have arrived."""
    loops, turns = sim.state.loops, sim.inputs.turns
    _take(loops, turns, sim.state.arrived, request)


@compiled
def _take(loops: Loops | None, turns: Turns | None, arrived: Floats, request: int) -> None:
    if loops is None or turns is None:
        return
    if turns.previous[request] >= 0:
        _pop(loops, arrived)
        return
    fresh = request + 1
    while fresh < len(arrived) and turns.previous[fresh] >= 0:
        fresh += 1
    loops.counters[Loop.FRESH] = fresh


@compiled
def _is_before(arrived: Floats, one: int, other: int) -> bool:
    return bool(arrived[one] < arrived[other] or (arrived[one] == arrived[other] and one < other))


@compiled
def _push(loops: Loops, arrived: Floats, request: int) -> None:
    heap: Ints = loops.known
    place = loops.counters[Loop.KNOWN]
    loops.counters[Loop.KNOWN] = place + 1
    while place > 0 and _is_before(arrived, request, heap[(place - 1) // 2]):
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[place] = request


@compiled
def _pop(loops: Loops, arrived: Floats) -> None:
    """Take the first request out."""
    heap: Ints = loops.known
    size = loops.counters[Loop.KNOWN] - 1
    loops.counters[Loop.KNOWN] = size
    last, place = heap[size], 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _is_before(arrived, heap[child + 1], heap[child]):
            child += 1
        if _is_before(arrived, last, heap[child]):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = last
