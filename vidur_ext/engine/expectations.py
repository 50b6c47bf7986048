"""Compiled: what a router expects to be found of a prompt in the replicas' prefix caches.

Either it asks the caches, perhaps as they were a while ago, or an index of its own of what it sent:
a cache per replica that holds prompts only, each of which is there as soon as it is dispatched.
"""

from __future__ import annotations

from ppo_scheduler.compiled import compiled, compiled_apart
from vidur_ext.engine.closed_loops import arriving
from vidur_ext.engine.layout import (
    EngineState,
    Expected,
    Index,
    Replica,
    Request,
    Simulation,
    with_state,
)
from vidur_ext.engine.prefix_cache import Cache, cache_in, cache_of, find, release, share


@compiled
def _index_of(sim: Simulation, index: Index, replica: int) -> Cache:
    """Return what the router believes of a replica's cache, as a cache in which nobody decodes."""
    return cache_in(sim, index.prefixes, index.rows[replica], replica)


@compiled_apart
def _send(cache: Cache, request: int, blocks: int) -> None:
    """Let a replica have the first blocks of a text, and evict what it was sent longest ago.

    Between two calls nobody uses an extent, so that the extents of a line do not overlap. They
    begin where the line does, where another one leaves it, or where a prompt ends: for each request
    in three places at most, for which there is room.
    """
    found = find(cache, request, blocks)[0]
    share(cache, request, found)
    cache.row[Replica.FREE] -= blocks - found
    release(cache, request, blocks * cache.block_size)


@compiled
def _look_up(sim: Simulation, expected: Expected | None, cached: EngineState) -> None:
    if expected is None or len(expected.offered) == 0:
        return
    request, block_size = arriving(sim), sim.settings.block_size
    # As at its admission: the last token is computed in any case.
    most = (sim.state.requests[request, Request.PROMPT] - 1) // block_size
    for replica in range(len(expected.offered)):
        if len(expected.sent.rows):
            cache = _index_of(sim, expected.sent, replica)
        else:
            cache = cache_of(with_state(sim, cached), replica)
        found, unused = find(cache, request, most)
        expected.offered[replica] = found * block_size
        expected.in_use[replica] = (found - unused) * block_size


@compiled
def look_up(sim: Simulation, cached: EngineState) -> None:
    """Note what each replica offers to the request that waits, if the router knows of that.

    Args:
        cached: the state whose caches the router asks.
    """
    _look_up(sim, sim.state.expected, cached)


@compiled
def _expect(sim: Simulation, expected: Expected | None, request: int, replica: int) -> None:
    if expected is None or len(expected.offered) == 0:
        return
    index = expected.sent
    expected.found[request] = expected.offered[replica]
    expected.spared[replica] += expected.offered[replica]
    if len(index.rows):
        blocks = sim.state.requests[request, Request.PROMPT] // sim.settings.block_size
        kept = min(blocks, sim.settings.index_blocks)
        _send(_index_of(sim, index, replica), request, kept)


@compiled
def expect(sim: Simulation, request: int, replica: int) -> None:
    """Remember what a replica offers to the request that is sent to it."""
    _expect(sim, sim.state.expected, request, replica)


@compiled
def pass_on(known: Expected | None, follower: Expected | None, request: int, replica: int) -> None:
    """Let a state that follows a simulation expect of a request what the simulation does."""
    if known is None or follower is None or len(known.offered) == 0:
        return
    follower.offered[replica] = known.found[request]


@compiled
def stop_expecting(expected: Expected | None, replica: int, request: int) -> None:
    """Let what was expected make way for what is found, at a request's first batch."""
    if expected is None or len(expected.offered) == 0:
        return
    expected.spared[replica] -= expected.found[request]


@compiled
def offered_tokens(expected: Expected | None, replica: int) -> int:
    """Return what a replica is expected to have of the prompt that waits to be routed."""
    if expected is None or len(expected.offered) == 0:
        return 0
    return int(expected.offered[replica])


@compiled
def in_use_tokens(expected: Expected | None, replica: int) -> int:
    """Return how many of the offered tokens are in blocks that running requests use."""
    if expected is None or len(expected.offered) == 0:
        return 0
    return int(expected.in_use[replica])


@compiled
def spared_tokens(expected: Expected | None, replica: int) -> int:
    """Return what is expected to be found of the prompts that wait on a replica."""
    if expected is None or len(expected.offered) == 0:
        return 0
    return int(expected.spared[replica])


@compiled
def found_tokens(expected: Expected | None, request: int) -> int:
    """Return what was expected to be found of a prompt when it was dispatched."""
    if expected is None or len(expected.offered) == 0:
        return 0
    return int(expected.found[request])
