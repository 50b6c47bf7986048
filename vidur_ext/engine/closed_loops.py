"""Compiled: which request arrives next where some wait for the answers to others.

Requests that wait for nobody arrive in the order of their rows. The others are known from the
completion on that they wait for, and stand in a heap by their arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.engine.layout import (
    Batching,
    Counter,
    Ints,
    Loop,
    Loops,
    Settings,
    Simulation,
    Turns,
)
from vidur_ext.workload.request_table import RequestTable


def turns_of(tables: Sequence[RequestTable], settings: Settings) -> Turns | None:
    """Return which requests of tables [B] of one length wait for which: arrays [B, N].

    None if none does, but for V1: it is compiled for such requests in any case, and once.
    """
    if settings.scheduler != Batching.VLLM_V1 and not any(table.waits for table in tables):
        return None
    shape = len(tables), len(tables[0])
    turns = Turns(np.full(shape, -1), np.full(shape, -1), np.zeros(shape))
    for env, table in enumerate(tables):
        if table.sessions is not None:
            waiting = np.flatnonzero(table.sessions.waits)
            turns.previous[env] = table.sessions.previous
            turns.next[env, table.sessions.previous[waiting]] = waiting
            turns.think_s[env] = table.sessions.think_s
    return turns


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
