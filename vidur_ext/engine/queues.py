"""Compiled: the waiting queue of a replica, linked through the requests themselves."""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from vidur_ext.engine.layout import EngineState, Replica, Request


@compiled
def push_back(state: EngineState, replica: int, request: int) -> None:
    """Let ``request`` wait after all others."""
    row = state.replicas[replica]
    if row[Replica.WAITING] == 0:
        row[Replica.HEAD] = request
    else:
        state.requests[row[Replica.TAIL], Request.NEXT] = request
    state.requests[request, Request.NEXT] = -1
    row[Replica.TAIL] = request
    row[Replica.WAITING] += 1


@compiled
def push_front(state: EngineState, replica: int, request: int) -> None:
    """Let ``request`` wait before all others."""
    row = state.replicas[replica]
    state.requests[request, Request.NEXT] = row[Replica.HEAD]
    if row[Replica.WAITING] == 0:
        row[Replica.TAIL] = request
    row[Replica.HEAD] = request
    row[Replica.WAITING] += 1


@compiled
def pop_front(state: EngineState, replica: int) -> int:
    """Take the first request off a queue that is not empty."""
    row = state.replicas[replica]
    request = row[Replica.HEAD]
    row[Replica.HEAD] = state.requests[request, Request.NEXT]
    row[Replica.WAITING] -= 1
    return int(request)
