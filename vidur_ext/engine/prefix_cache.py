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

from vidur_ext.compiled import compiled
from vidur_ext.engine.layout import (
    ALIAS,
    EngineState,
    Extent,
    Held,
    Line,
    Replica,
    Request,
    Simulation,
)


@compiled
def settle(state: EngineState, replica: int) -> None:
    """Evict what has been taken of the unused blocks since the last call."""
    row, extents = state.replicas[replica], state.extents[replica]
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
        _leave_queue(state, replica, oldest)
        _forget(state, replica, oldest)


@compiled
def find(sim: Simulation, replica: int, request: int, most: int) -> tuple[int, int]:
    """Return how many of the first ``most`` blocks of a text are found, and how many are unused.

    Decoding requests have computed what the batch computes that is being formed, or runs.
    """
    state, lines, way = sim.state, sim.inputs.lines, sim.way
    settle(state, replica)
    line = _first_line(sim, request)
    place = unused = 0
    _follow_decoding(sim, replica, line)
    while place < most:
        while way[line] >= 0 and lines[way[line], Line.BASE] <= place:
            line = way[line]
            _follow_decoding(sim, replica, line)
        extent, end = _first_copy(sim, replica, line, place, most)
        if extent < 0:
            break
        if state.extents[replica, extent, Extent.USERS] == 0:
            unused += end - place
        place = end
    return place, unused


@compiled
def share(sim: Simulation, replica: int, request: int, blocks: int) -> None:
    """Let a request have the first ``blocks`` blocks of its text, which have been found."""
    state, lines, way = sim.state, sim.inputs.lines, sim.way
    extents, row = state.extents[replica], state.replicas[replica]
    line = _first_line(sim, request)
    place, top, unused_below = 0, -1, False
    while place < blocks:
        while way[line] >= 0 and lines[way[line], Line.BASE] <= place:
            line = way[line]
        extent, end = _first_copy(sim, replica, line, place, blocks)
        if extents[extent, Extent.START] < place:
            _split(state, replica, extent, place)
        if extents[extent, Extent.END] > end:
            extent = _split(state, replica, extent, end)
        if extents[extent, Extent.USERS] == 0:
            _leave_queue(state, replica, extent)
            row[Replica.CACHED] -= end - place
            row[Replica.FREE] -= end - place
            extents[extent, Extent.USERS] = 1
            extents[extent, Extent.BELOW] = top
            if (
                unused_below
                and extents[top, Extent.NEXT] == extent
                and extents[top, Extent.LINE] == line
            ):
                _merge_into_next(state, replica, top)
            unused_below = True
        else:
            if extents[extent, Extent.BELOW] != top:
                extent = _new_alias(state, replica, extent, top)
            else:
                extents[extent, Extent.USERS] += 1
            unused_below = False
        top, place = extent, end
    state.requests[request, Request.TOP] = top
    state.requests[request, Request.REGISTERED] = blocks


@compiled
def register(sim: Simulation, replica: int, request: int, computed: int) -> None:
    """Let the blocks of a request be found that its ``computed`` tokens fill."""
    state, lines = sim.state, sim.inputs.lines
    full = computed // sim.settings.block_size
    place = state.requests[request, Request.REGISTERED]
    while place < full:
        line, end = state.requests[request, Request.LINE], full
        while lines[line, Line.BASE] > place:
            end = min(full, lines[line, Line.BASE])
            line = lines[line, Line.PARENT]
        _hold(state, replica, request, line, place, end)
        place = end


@compiled
def release(sim: Simulation, replica: int, request: int, computed: int) -> None:
    """Take a request's blocks, of ``computed`` tokens; the end of its text is evicted first."""
    state = sim.state
    extents, row = state.extents[replica], state.replicas[replica]
    settle(state, replica)
    register(sim, replica, request, computed)
    if computed % sim.settings.block_size:
        row[Replica.BLANK] += 1
        row[Replica.FREE] += 1
    extent = state.requests[request, Request.TOP]
    while extent >= 0:
        below = extents[extent, Extent.BELOW]
        if extents[extent, Extent.LINE] == ALIAS:
            # What it stands for may have been split since: its parts are one below the other.
            start, part = extents[extent, Extent.START], extents[extent, Extent.NEXT]
            while extents[part, Extent.START] > start:
                lower = extents[part, Extent.BELOW]
                _lose_user(state, replica, part)
                part = lower
            _lose_user(state, replica, part)
            _free_row(state, replica, extent)
        else:
            _lose_user(state, replica, extent)
        extent = below
    state.requests[request, Request.TOP] = -1
    state.requests[request, Request.REGISTERED] = 0


@compiled
def _first_line(sim: Simulation, request: int) -> int:
    """Note the way along a request's text; return the line that it begins with."""
    lines, way = sim.inputs.lines, sim.way
    line = sim.state.requests[request, Request.LINE]
    way[line] = -1
    while lines[line, Line.PARENT] >= 0:
        way[lines[line, Line.PARENT]] = line
        line = lines[line, Line.PARENT]
    return int(line)


@compiled
def _first_copy(
    sim: Simulation, replica: int, line: int, place: int, most: int
) -> tuple[int, int]:
    """Return the extent that was the first to hold a block, and up to where it was; -1 if none."""
    extents, down = sim.state.extents[replica], sim.way[line]
    end = most if down < 0 else min(most, sim.inputs.lines[down, Line.BASE])
    extent = sim.state.lines[replica, line, Held.FIRST]
    while extent >= 0:
        start = extents[extent, Extent.START]
        if start <= place and place < extents[extent, Extent.END]:
            return extent, min(end, extents[extent, Extent.END])
        if place < start:
            end = min(end, start)
        extent = extents[extent, Extent.NEXT]
    return -1, place


@compiled
def _follow_decoding(sim: Simulation, replica: int, line: int) -> None:
    """Register what decoding requests have filled of a line."""
    state = sim.state
    if state.lines[replica, line, Held.DECODING] == 0:
        return
    row = state.replicas[replica]
    for slot in range(row[Replica.DECODING]):
        request = state.members[replica, slot]
        if state.requests[request, Request.LINE] == line:
            computed = state.requests[request, Request.DONE] + row[Replica.ROUNDS]
            register(sim, replica, request, computed)


@compiled
def _hold(
    state: EngineState, replica: int, request: int, line: int, start: int, end: int
) -> None:
    """Give a request an extent above those it has, or lengthen the last one."""
    extents, top = state.extents[replica], state.requests[request, Request.TOP]
    state.requests[request, Request.REGISTERED] = end
    if (
        top >= 0
        and extents[top, Extent.LINE] == line
        and extents[top, Extent.USERS] == 1
        and not _registered_since(state, replica, top, start, end)
    ):
        extents[top, Extent.END] = end
        return
    extent = _new_row(state, replica)
    extents[extent, Extent.LINE] = line
    extents[extent, Extent.START] = start
    extents[extent, Extent.END] = end
    extents[extent, Extent.USERS] = 1
    extents[extent, Extent.BELOW] = top
    extents[extent, Extent.NEXT] = -1
    state.requests[request, Request.TOP] = extent
    last = state.lines[replica, line, Held.FIRST]
    if last < 0:
        state.lines[replica, line, Held.FIRST] = extent
        return
    while extents[last, Extent.NEXT] >= 0:
        last = extents[last, Extent.NEXT]
    extents[last, Extent.NEXT] = extent


@compiled
def _registered_since(
    state: EngineState, replica: int, extent: int, start: int, end: int
) -> bool:
    """Return whether one that was registered after an extent on its line has some of the blocks."""
    extents = state.extents[replica]
    other = extents[extent, Extent.NEXT]
    while other >= 0:
        if extents[other, Extent.START] < end and start < extents[other, Extent.END]:
            return True
        other = extents[other, Extent.NEXT]
    return False


@compiled
def _split(state: EngineState, replica: int, extent: int, at: int) -> int:
    """Cut an extent in two; return its lower part, which is new.

    Its users have the upper part by the number they know, and the lower one below it.
    """
    extents, row = state.extents[replica], state.replicas[replica]
    lower = _new_row(state, replica)
    for column in range(extents.shape[1]):
        extents[lower, column] = extents[extent, column]
    extents[lower, Extent.END] = at
    extents[lower, Extent.NEXT] = extent
    extents[extent, Extent.START] = at
    extents[extent, Extent.BELOW] = lower
    _replace_in_line(state, replica, extent, lower)
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
def _merge_into_next(state: EngineState, replica: int, lower: int) -> None:
    """Undo a split, or make one of two extents that have come to share their fate."""
    extents = state.extents[replica]
    extent = extents[lower, Extent.NEXT]
    extents[extent, Extent.START] = extents[lower, Extent.START]
    extents[extent, Extent.BELOW] = extents[lower, Extent.BELOW]
    _replace_in_line(state, replica, lower, extent)
    _free_row(state, replica, lower)


@compiled
def _new_alias(state: EngineState, replica: int, extent: int, below: int) -> int:
    """Return a row that stands for an extent in use, above another one than that."""
    extents = state.extents[replica]
    alias = _new_row(state, replica)
    extents[alias, Extent.LINE] = ALIAS
    extents[alias, Extent.START] = extents[extent, Extent.START]
    extents[alias, Extent.END] = extents[extent, Extent.END]
    extents[alias, Extent.USERS] = 1
    extents[alias, Extent.BELOW] = below
    extents[alias, Extent.NEXT] = extent
    extents[extent, Extent.USERS] += 1
    return alias


@compiled
def _lose_user(state: EngineState, replica: int, extent: int) -> None:
    """Count one user less; without any, the extent is the last to be evicted."""
    extents, row = state.extents[replica], state.replicas[replica]
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
def _leave_queue(state: EngineState, replica: int, extent: int) -> None:
    """Take an extent out of the queue of unused ones."""
    extents, row = state.extents[replica], state.replicas[replica]
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
def _replace_in_line(state: EngineState, replica: int, extent: int, other: int) -> None:
    """Let whatever leads to an extent in its line's list lead to another one."""
    extents = state.extents[replica]
    held = state.lines[replica, extents[extent, Extent.LINE]]
    before = held[Held.FIRST]
    if before == extent:
        held[Held.FIRST] = other
        return
    while extents[before, Extent.NEXT] != extent:
        before = extents[before, Extent.NEXT]
    extents[before, Extent.NEXT] = other


@compiled
def _forget(state: EngineState, replica: int, extent: int) -> None:
    """Let an extent's text not be found any more."""
    _replace_in_line(state, replica, extent, state.extents[replica, extent, Extent.NEXT])
    _free_row(state, replica, extent)


@compiled
def _new_row(state: EngineState, replica: int) -> int:
    """Return a row for an extent."""
    row = state.replicas[replica]
    row[Replica.EXTENTS] += 1
    spare = row[Replica.SPARE]
    if spare >= 0:
        row[Replica.SPARE] = state.extents[replica, spare, Extent.LATER]
        return int(spare)
    row[Replica.ROWS] += 1
    return int(row[Replica.ROWS] - 1)


@compiled
def _free_row(state: EngineState, replica: int, extent: int) -> None:
    row = state.replicas[replica]
    row[Replica.EXTENTS] -= 1
    state.extents[replica, extent, Extent.LATER] = row[Replica.SPARE]
    row[Replica.SPARE] = extent
