"""Compiled: the waiting queue of a replica, linked through the requests themselves."""

from __future__ import annotations

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import HEAD, NEXT, TAIL, WAITING, State


@compiled
def push_back(state: State, replica: int, request: int) -> None:
    """Let ``request`` wait behind all others."""
    row = state.replicas[replica]
    if row[WAITING] == 0:
        row[HEAD] = request
    else:
        state.requests[row[TAIL], NEXT] = request
    state.requests[request, NEXT] = -1
    row[TAIL] = request
    row[WAITING] += 1


@compiled
def push_front(state: State, replica: int, request: int) -> None:
    """Let ``request`` wait before all others."""
    row = state.replicas[replica]
    state.requests[request, NEXT] = row[HEAD]
    if row[WAITING] == 0:
        row[TAIL] = request
    row[HEAD] = request
    row[WAITING] += 1


@compiled
def pop_front(state: State, replica: int) -> int:
    """Take the first request off a queue that is not empty."""
    row = state.replicas[replica]
    request = row[HEAD]
    row[HEAD] = state.requests[request, NEXT]
    row[WAITING] -= 1
    return int(request)
