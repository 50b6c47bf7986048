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

from ppo_scheduler.compiled import compiled
from vidur_ext.engine.layout import (
    ALIAS,
    Extent,
    Held,
    Ints,
    Line,
    Prefixes,
    Replica,
    Request,
    Shelf,
    Simulation,
    Text,
)


class Cache(NamedTuple):
    """What the prefix cache of one replica consists of; arrays are views.

    requests, texts, lines, way: the simulation's. row, shelf, members, extents, held: the
    replica's, of ``EngineState.replicas``, ``members``, and of ``Prefixes.shelves``, ``extents``
    and ``lines``.
    """

    requests: Ints
    texts: Ints
    lines: Ints
    way: Ints
    row: Ints
    shelf: Ints
    members: Ints
    extents: Ints
    held: Ints
    block_size: int


@compiled
def cache_of(sim: Simulation, replica: int) -> Cache:
    """Return the prefix cache of a replica; the simulation has prefixes."""
    prefixes = sim.state.prefixes
    assert prefixes is not None
    return cache_in(sim, prefixes, sim.state.replicas[replica], replica)


@compiled
def cache_in(sim: Simulation, prefixes: Prefixes, row: Ints, replica: int) -> Cache:
    """Return a replica's cache in ``prefixes``, whose free blocks and decoding ``row`` counts."""
    lines, way = sim.inputs.lines, sim.way
    assert lines is not None
    assert way is not None
    return Cache(
        sim.state.requests,
        prefixes.texts,
        lines,
        way,
        row,
        prefixes.shelves[replica],
        sim.state.members[replica],
        prefixes.extents[replica],
        prefixes.lines[replica],
        sim.settings.block_size,
    )


@compiled
def settle(cache: Cache) -> None:
    """Evict what has been taken of the unused blocks since the last call."""
    row, shelf, extents = cache.row, cache.shelf, cache.extents
    taken = shelf[Shelf.BLANK] + shelf[Shelf.CACHED] - row[Replica.FREE]
    blank = min(taken, shelf[Shelf.BLANK])
    shelf[Shelf.BLANK] -= blank
    taken -= blank
    shelf[Shelf.CACHED] -= taken
    while taken > 0:
        oldest = shelf[Shelf.OLDEST]
        length = extents[oldest, Extent.END] - extents[oldest, Extent.START]
        if length > taken:
            extents[oldest, Extent.END] -= taken
            return
        taken -= length
        _leave_queue(cache, oldest)
        _forget(cache, oldest)


@compiled
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


@compiled
def share(cache: Cache, request: int, blocks: int) -> None:
    """Let a request have the first ``blocks`` blocks of its text, which have been found."""
    lines, way = cache.lines, cache.way
    extents, shelf, row = cache.extents, cache.shelf, cache.row
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
            shelf[Shelf.CACHED] -= end - place
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
    cache.texts[request, Text.TOP] = top
    cache.texts[request, Text.REGISTERED] = blocks


@compiled
def register(cache: Cache, request: int, computed: int) -> None:
    """Let the blocks of a request be found that its ``computed`` tokens fill."""
    lines = cache.lines
    full = min(computed, cache.texts[request, Text.KNOWN]) // cache.block_size
    place = cache.texts[request, Text.REGISTERED]
    while place < full:
        line, end = cache.texts[request, Text.LINE], full
        while lines[line, Line.BASE] > place:
            end = min(full, lines[line, Line.BASE])
            line = lines[line, Line.PARENT]
        _hold(cache, request, line, place, end)
        place = end


@compiled
def register_after_decoding(cache: Cache, request: int, computed: int) -> None:
    """Register a prompt's tokens after those that decoding requests have filled before.

    A prompt may hold an answer that is still being given; which copy was the first is found.
    """
    line, known = cache.texts[request, Text.LINE], cache.texts[request, Text.REGISTERED]
    while line >= 0:
        _follow_decoding(cache, line)
        if cache.lines[line, Line.BASE] <= known:
            break
        line = cache.lines[line, Line.PARENT]
    register(cache, request, computed)


@compiled
def release(cache: Cache, request: int, computed: int) -> None:
    """Take a request's blocks, of ``computed`` tokens; the end of its text is evicted first."""
    extents, shelf, row = cache.extents, cache.shelf, cache.row
    settle(cache)
    register(cache, request, computed)
    blank = -(-computed // cache.block_size) - cache.texts[request, Text.REGISTERED]
    shelf[Shelf.BLANK] += blank
    row[Replica.FREE] += blank
    extent = cache.texts[request, Text.TOP]
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
    cache.texts[request, Text.TOP] = -1
    cache.texts[request, Text.REGISTERED] = 0


@compiled
def _first_line(cache: Cache, request: int) -> int:
    """Note the way along a request's text; return the line that it begins with."""
    lines, way = cache.lines, cache.way
    line = cache.texts[request, Text.LINE]
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
        if cache.texts[request, Text.LINE] == line:
            computed = cache.requests[request, Request.DONE] + row[Replica.ROUNDS]
            register(cache, request, computed)


@compiled
def _hold(cache: Cache, request: int, line: int, start: int, end: int) -> None:
    """Give a request an extent above those it has, or lengthen the last one."""
    extents, top = cache.extents, cache.texts[request, Text.TOP]
    cache.texts[request, Text.REGISTERED] = end
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
    cache.texts[request, Text.TOP] = extent
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
    extents, shelf = cache.extents, cache.shelf
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
            shelf[Shelf.NEWEST] = lower
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
    extents, shelf, row = cache.extents, cache.shelf, cache.row
    extents[extent, Extent.USERS] -= 1
    if extents[extent, Extent.USERS] > 0:
        return
    length = extents[extent, Extent.END] - extents[extent, Extent.START]
    shelf[Shelf.CACHED] += length
    row[Replica.FREE] += length
    newest = shelf[Shelf.NEWEST]
    extents[extent, Extent.EARLIER] = newest
    extents[extent, Extent.LATER] = -1
    if newest >= 0:
        extents[newest, Extent.LATER] = extent
    else:
        shelf[Shelf.OLDEST] = extent
    shelf[Shelf.NEWEST] = extent


@compiled
def _leave_queue(cache: Cache, extent: int) -> None:
    """Take an extent out of the queue of unused ones."""
    extents, shelf = cache.extents, cache.shelf
    earlier, later = extents[extent, Extent.EARLIER], extents[extent, Extent.LATER]
    if earlier >= 0:
        extents[earlier, Extent.LATER] = later
    else:
        shelf[Shelf.OLDEST] = later
    if later >= 0:
        extents[later, Extent.EARLIER] = earlier
    else:
        shelf[Shelf.NEWEST] = earlier


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
    shelf = cache.shelf
    shelf[Shelf.EXTENTS] += 1
    spare = shelf[Shelf.SPARE]
    if spare >= 0:
        shelf[Shelf.SPARE] = cache.extents[spare, Extent.LATER]
        return int(spare)
    shelf[Shelf.ROWS] += 1
    return int(shelf[Shelf.ROWS] - 1)


@compiled
def _free_row(cache: Cache, extent: int) -> None:
    shelf = cache.shelf
    shelf[Shelf.EXTENTS] -= 1
    cache.extents[extent, Extent.LATER] = shelf[Shelf.SPARE]
    shelf[Shelf.SPARE] = extent
