"""Compiled: a replica's prefix cache, as vLLM's V1 keeps it, in runs of blocks.

vLLM has a number, a count of users and a place in the queue of unused blocks for each block. A
prompt has hundreds of blocks that share one fate, so here an *extent* of consecutive blocks has
these, and it is split where fates part. What is found, kept and evicted is the same to the block.

Blocks that hold no text are all alike, and the first to be taken: they are counted (BLANK). Blocks
that decoding requests take and fill are followed up when somebody looks: ``settle`` evicts what has
been taken, ``_catch_up`` registers what has become full.

An extent's users are those who have it, and the extents BELOW it, in their text. Two copies of one
text can be in use at once; who has an extent above another copy than its first user has it under an
*alias*.
"""

from __future__ import annotations

from typing import NamedTuple

from vidur_ext.compiled import compiled, compiled_apart
from vidur_ext.engine.layout import (
    ALIAS,
    Extent,
    Held,
    Ints,
    Line,
    Replica,
    Request,
    Simulation,
)


class Cache(NamedTuple):
    """What the prefix cache of one replica consists of; arrays are views.

    requests, lines, way: the simulation's. row, members, extents, held: the replica's, of
    ``EngineState.replicas``, ``members``, ``extents`` and ``lines``.
    """

    requests: Ints
    lines: Ints
    way: Ints
    row: Ints
    members: Ints
    extents: Ints
    held: Ints
    block_size: int


@compiled
def cache_of(sim: Simulation, replica: int) -> Cache:
    """Return the prefix cache of a replica."""
    state = sim.state
    return Cache(
        state.requests,
        sim.inputs.lines,
        sim.way,
        state.replicas[replica],
        state.members[replica],
        state.extents[replica],
        state.lines[replica],
        sim.settings.block_size,
    )


@compiled_apart
def settle(cache: Cache) -> None:
    """Evict what has been taken of the unused blocks since the last call."""
    row, extents = cache.row, cache.extents
    taken = row[Replica.BLANK] + row[Replica.CACHED] - row[Replica.FREE]
    blank = min(taken, row[Replica.BLANK])
    row[Replica.BLANK] -= blank
    taken -= blank
    row[Replica.CACHED] -= taken
    while taken > 0:
        oldest = row[Replica.OLDEST]
        length = extents[oldest, Extent.END] - extents[oldest, Extent.START]
        if length > taken:
            extents[oldest, Extent.END] -= taken
            return
        taken -= length
        _leave_queue(cache, oldest)
        _forget(cache, oldest)


@compiled_apart
def find(cache: Cache, request: int, most: int) -> tuple[int, int]:
    """Return how many of the first ``most`` blocks of a text are found, and how many are unused.

    Decoding requests have computed what the batch computes that is being formed, or runs.
    """
    lines, way = cache.lines, cache.way
    settle(cache)
    line = _first_line(cache, request)
    place = unused = 0
    _follow_decoding(cache, line)
    while place < most:
        while way[line] >= 0 and lines[way[line], Line.BASE] <= place:
            line = way[line]
            _follow_decoding(cache, line)
        extent, end = _first_copy(cache, line, place, most)
        if extent < 0:
            break
        if cache.extents[extent, Extent.USERS] == 0:
            unused += end - place
        place = end
    return place, unused


@compiled_apart
def share(cache: Cache, request: int, blocks: int) -> None:
    """Let a request have the first ``blocks`` blocks of its text, which have been found."""
    lines, way = cache.lines, cache.way
    extents, row = cache.extents, cache.row
    line = _first_line(cache, request)
    place, top, unused_below = 0, -1, False
    while place < blocks:
        while way[line] >= 0 and lines[way[line], Line.BASE] <= place:
            line = way[line]
        extent, end = _first_copy(cache, line, place, blocks)
        if extents[extent, Extent.START] < place:
            _split(cache, extent, place)
        if extents[extent, Extent.END] > end:
            extent = _split(cache, extent, end)
        if extents[extent, Extent.USERS] == 0:
            _leave_queue(cache, extent)
            row[Replica.CACHED] -= end - place
            row[Replica.FREE] -= end - place
            extents[extent, Extent.USERS] = 1
            extents[extent, Extent.BELOW] = top
            if (
                unused_below
                and extents[top, Extent.NEXT] == extent
                and extents[top, Extent.LINE] == line
            ):
                _merge_into_next(cache, top)
            unused_below = True
        else:
            if extents[extent, Extent.BELOW] != top:
                extent = _new_alias(cache, extent, top)
            else:
                extents[extent, Extent.USERS] += 1
            unused_below = False
        top, place = extent, end
    cache.requests[request, Request.TOP] = top
    cache.requests[request, Request.REGISTERED] = blocks


@compiled_apart
def register(cache: Cache, request: int, computed: int) -> None:
    """Let the blocks of a request be found that its ``computed`` tokens fill."""
    lines = cache.lines
    full = computed // cache.block_size
    place = cache.requests[request, Request.REGISTERED]
    while place < full:
        line, end = cache.requests[request, Request.LINE], full
        while lines[line, Line.BASE] > place:
            end = min(full, lines[line, Line.BASE])
            line = lines[line, Line.PARENT]
        _hold(cache, request, line, place, end)
        place = end


@compiled_apart
def release(cache: Cache, request: int, computed: int) -> None:
    """Take a request's blocks, of ``computed`` tokens; the end of its text is evicted first."""
    extents, row = cache.extents, cache.row
    settle(cache)
    register(cache, request, computed)
    if computed % cache.block_size:
        row[Replica.BLANK] += 1
        row[Replica.FREE] += 1
    extent = cache.requests[request, Request.TOP]
    while extent >= 0:
        below = extents[extent, Extent.BELOW]
        if extents[extent, Extent.LINE] == ALIAS:
            # What it stands for may have been split since: its parts are one below the other.
            start, part = extents[extent, Extent.START], extents[extent, Extent.NEXT]
            while extents[part, Extent.START] > start:
                lower = extents[part, Extent.BELOW]
                _lose_user(cache, part)
                part = lower
            _lose_user(cache, part)
            _free_row(cache, extent)
        else:
            _lose_user(cache, extent)
        extent = below
    cache.requests[request, Request.TOP] = -1
    cache.requests[request, Request.REGISTERED] = 0


@compiled
def _first_line(cache: Cache, request: int) -> int:
    """Note the way along a request's text; return the line that it begins with."""
    lines, way = cache.lines, cache.way
    line = cache.requests[request, Request.LINE]
    way[line] = -1
    while lines[line, Line.PARENT] >= 0:
        way[lines[line, Line.PARENT]] = line
        line = lines[line, Line.PARENT]
    return int(line)


@compiled
def _first_copy(cache: Cache, line: int, place: int, most: int) -> tuple[int, int]:
    """Return the extent that was the first to hold a block, and up to where it was; -1 if none."""
    extents, down = cache.extents, cache.way[line]
    end = most if down < 0 else min(most, cache.lines[down, Line.BASE])
    extent = cache.held[line, Held.FIRST]
    while extent >= 0:
        start = extents[extent, Extent.START]
        if start <= place and place < extents[extent, Extent.END]:
            return extent, min(end, extents[extent, Extent.END])
        if place < start:
            end = min(end, start)
        extent = extents[extent, Extent.NEXT]
    return -1, place


@compiled
def _follow_decoding(cache: Cache, line: int) -> None:
    """Register what decoding requests have filled of a line."""
    if cache.held[line, Held.DECODING] == 0:
        return
    row = cache.row
    for slot in range(row[Replica.DECODING]):
        request = cache.members[slot]
        if cache.requests[request, Request.LINE] == line:
            computed = cache.requests[request, Request.DONE] + row[Replica.ROUNDS]
            register(cache, request, computed)


@compiled
def _hold(cache: Cache, request: int, line: int, start: int, end: int) -> None:
    """Give a request an extent above those it has, or lengthen the last one."""
    extents, top = cache.extents, cache.requests[request, Request.TOP]
    cache.requests[request, Request.REGISTERED] = end
    if (
        top >= 0
        and extents[top, Extent.LINE] == line
        and extents[top, Extent.USERS] == 1
        and not _registered_since(cache, top, start, end)
    ):
        extents[top, Extent.END] = end
        return
    extent = _new_row(cache)
    extents[extent, Extent.LINE] = line
    extents[extent, Extent.START] = start
    extents[extent, Extent.END] = end
    extents[extent, Extent.USERS] = 1
    extents[extent, Extent.BELOW] = top
    extents[extent, Extent.NEXT] = -1
    cache.requests[request, Request.TOP] = extent
    last = cache.held[line, Held.FIRST]
    if last < 0:
        cache.held[line, Held.FIRST] = extent
        return
    while extents[last, Extent.NEXT] >= 0:
        last = extents[last, Extent.NEXT]
    extents[last, Extent.NEXT] = extent


@compiled
def _registered_since(cache: Cache, extent: int, start: int, end: int) -> bool:
    """Return whether one that was registered after an extent on its line has some of the blocks."""
    extents = cache.extents
    other = extents[extent, Extent.NEXT]
    while other >= 0:
        if extents[other, Extent.START] < end and start < extents[other, Extent.END]:
            return True
        other = extents[other, Extent.NEXT]
    return False


@compiled
def _split(cache: Cache, extent: int, at: int) -> int:
    """Cut an extent in two; return its lower part, which is new.

    Its users have the upper part by the number they know, and the lower one below it.
    """
    extents, row = cache.extents, cache.row
    lower = _new_row(cache)
    for column in range(extents.shape[1]):
        extents[lower, column] = extents[extent, column]
    extents[lower, Extent.END] = at
    extents[lower, Extent.NEXT] = extent
    extents[extent, Extent.START] = at
    extents[extent, Extent.BELOW] = lower
    _replace_in_line(cache, extent, lower)
    if extents[extent, Extent.USERS] == 0:
        later = extents[extent, Extent.LATER]
        extents[lower, Extent.EARLIER] = extent
        extents[extent, Extent.LATER] = lower
        if later >= 0:
            extents[later, Extent.EARLIER] = lower
        else:
            row[Replica.NEWEST] = lower
    return lower


@compiled
def _merge_into_next(cache: Cache, lower: int) -> None:
    """Undo a split, or make one of two extents that have come to share their fate."""
    extents = cache.extents
    extent = extents[lower, Extent.NEXT]
    extents[extent, Extent.START] = extents[lower, Extent.START]
    extents[extent, Extent.BELOW] = extents[lower, Extent.BELOW]
    _replace_in_line(cache, lower, extent)
    _free_row(cache, lower)


@compiled
def _new_alias(cache: Cache, extent: int, below: int) -> int:
    """Return a row that stands for an extent in use, above another one than that."""
    extents = cache.extents
    alias = _new_row(cache)
    extents[alias, Extent.LINE] = ALIAS
    extents[alias, Extent.START] = extents[extent, Extent.START]
    extents[alias, Extent.END] = extents[extent, Extent.END]
    extents[alias, Extent.USERS] = 1
    extents[alias, Extent.BELOW] = below
    extents[alias, Extent.NEXT] = extent
    extents[extent, Extent.USERS] += 1
    return alias


@compiled
def _lose_user(cache: Cache, extent: int) -> None:
    """Count one user less; without any, the extent is the last to be evicted."""
    extents, row = cache.extents, cache.row
    extents[extent, Extent.USERS] -= 1
    if extents[extent, Extent.USERS] > 0:
        return
    length = extents[extent, Extent.END] - extents[extent, Extent.START]
    row[Replica.CACHED] += length
    row[Replica.FREE] += length
    newest = row[Replica.NEWEST]
    extents[extent, Extent.EARLIER] = newest
    extents[extent, Extent.LATER] = -1
    if newest >= 0:
        extents[newest, Extent.LATER] = extent
    else:
        row[Replica.OLDEST] = extent
    row[Replica.NEWEST] = extent


@compiled
def _leave_queue(cache: Cache, extent: int) -> None:
    """Take an extent out of the queue of unused ones."""
    extents, row = cache.extents, cache.row
    earlier, later = extents[extent, Extent.EARLIER], extents[extent, Extent.LATER]
    if earlier >= 0:
        extents[earlier, Extent.LATER] = later
    else:
        row[Replica.OLDEST] = later
    if later >= 0:
        extents[later, Extent.EARLIER] = earlier
    else:
        row[Replica.NEWEST] = earlier


@compiled
def _replace_in_line(cache: Cache, extent: int, other: int) -> None:
    """Let whatever leads to an extent in its line's list lead to another one."""
    extents = cache.extents
    held = cache.held[extents[extent, Extent.LINE]]
    before = held[Held.FIRST]
    if before == extent:
        held[Held.FIRST] = other
        return
    while extents[before, Extent.NEXT] != extent:
        before = extents[before, Extent.NEXT]
    extents[before, Extent.NEXT] = other


@compiled
def _forget(cache: Cache, extent: int) -> None:
    """Let an extent's text not be found any more."""
    _replace_in_line(cache, extent, cache.extents[extent, Extent.NEXT])
    _free_row(cache, extent)


@compiled
def _new_row(cache: Cache) -> int:
    """Return a row for an extent."""
    row = cache.row
    row[Replica.EXTENTS] += 1
    spare = row[Replica.SPARE]
    if spare >= 0:
        row[Replica.SPARE] = cache.extents[spare, Extent.LATER]
        return int(spare)
    row[Replica.ROWS] += 1
    return int(row[Replica.ROWS] - 1)


@compiled
def _free_row(cache: Cache, extent: int) -> None:
    row = cache.row
    row[Replica.EXTENTS] -= 1
    cache.extents[extent, Extent.LATER] = row[Replica.SPARE]
    row[Replica.SPARE] = extent
