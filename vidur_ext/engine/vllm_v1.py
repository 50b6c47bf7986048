"""Compiled: which requests form a replica's next batch by the rules of vLLM's V1 scheduler.

Every running request goes on, in the order of their admission: decoding ones by a token, then the
one whose prompt is begun by what is left of the batch's tokens. Blocks are taken as tokens need
them; where they are missing, whoever was admitted last gives up its own. New requests are admitted
if nobody had to, and if their whole prompts have room beside what is found of them in the cache.
"""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from vidur_ext.engine.expectations import stop_expecting
from vidur_ext.engine.layout import (
    EXTENTS_PER_BATCH,
    Counter,
    Own,
    Replica,
    Request,
    Shelf,
    Simulation,
    Text,
    Time,
)
from vidur_ext.engine.preemption import find_next_finish, restart
from vidur_ext.engine.prefix_cache import cache_of, find, register_after_decoding, release, share
from vidur_ext.engine.queues import pop_front


@compiled
def give_back(sim: Simulation, replica: int, request: int, computed: int) -> None:
    """Take the blocks of a request's ``computed`` tokens."""
    if sim.settings.prefix_caching:
        release(cache_of(sim, replica), request, computed)
    else:
        blocks = -(-computed // sim.settings.block_size)
        sim.state.replicas[replica, Replica.FREE] += blocks


@compiled
def _preempt_last(sim: Simulation, replica: int) -> None:
    """Send the request back that was admitted last; a prompt that is begun is the last."""
    state = sim.state
    row = state.replicas[replica]
    row[Replica.MEMBERS] -= 1
    request = state.members[replica, row[Replica.MEMBERS]]
    partial = row[Replica.PARTIAL] == 1
    computed = state.requests[request, Request.DONE]
    known = state.requests[request, Request.PROMPT]
    if not partial:
        known = computed + row[Replica.ROUNDS]
        computed = known - 1
    give_back(sim, replica, request, computed)
    restart(sim, replica, request, partial, known)
    row[Replica.PARTIAL] = 0


@compiled
def _take_blocks(sim: Simulation, replica: int) -> bool:
    """Take what the decoding requests need; return whether some request had to give up its own."""
    state, block_size = sim.state, sim.settings.block_size
    row = state.replicas[replica]
    needed = state.phases[replica, row[Replica.ROUNDS] % block_size]
    if needed <= row[Replica.FREE]:
        row[Replica.FREE] -= needed
        return False
    preempted = False
    slot = 0
    while slot < row[Replica.MEMBERS] - row[Replica.PARTIAL]:
        request = state.members[replica, slot]
        slot += 1
        if (state.requests[request, Request.DONE] + row[Replica.ROUNDS]) % block_size != (
            1 % block_size
        ):
            continue
        while row[Replica.FREE] == 0 and slot <= row[Replica.MEMBERS]:
            _preempt_last(sim, replica)
            preempted = True
        if slot <= row[Replica.MEMBERS]:
            row[Replica.FREE] -= 1
    return preempted


@compiled
def _extend(sim: Simulation, replica: int, request: int, slot: int, chunk: int) -> None:
    """Let the batch compute a chunk of a prompt, for which there are blocks."""
    state, block_size = sim.state, sim.settings.block_size
    done = state.requests[request, Request.DONE]
    blocks = -(-(done + chunk) // block_size) - -(-done // block_size)
    state.replicas[replica, Replica.FREE] -= blocks
    state.chunks[replica, slot] = chunk
    if sim.settings.prefix_caching:
        register_after_decoding(cache_of(sim, replica), request, done + chunk)


@compiled
def _continue_prompt(sim: Simulation, replica: int) -> bool:
    """Let the begun prompt have what the decoding requests leave; return whether it cannot."""
    state, block_size = sim.state, sim.settings.block_size
    row = state.replicas[replica]
    slot = row[Replica.MEMBERS] - 1
    request = state.members[replica, slot]
    done = state.requests[request, Request.DONE]
    chunk = min(
        state.requests[request, Request.PROMPT] - done,
        sim.settings.batch_tokens - row[Replica.DECODING],
    )
    if -(-(done + chunk) // block_size) - -(-done // block_size) > row[Replica.FREE]:
        _preempt_last(sim, replica)
        return True
    _extend(sim, replica, request, slot, chunk)
    return False


@compiled
def _note_hits(sim: Simulation, request: int, hits: int) -> None:
    prefixes = sim.state.prefixes
    assert prefixes is not None
    prefixes.texts[request, Text.HITS] = hits


@compiled
def _admit(sim: Simulation, replica: int, now: float, tokens: int) -> bool:
    """Admit the first waiting request with what ``tokens`` leave of the batch, if it fits."""
    state, block_size = sim.state, sim.settings.block_size
    row = state.replicas[replica]
    request = row[Replica.HEAD]
    prompt = state.requests[request, Request.PROMPT]
    found = unused = 0
    if sim.settings.prefix_caching:
        # The last token is computed in any case: what follows it is what is asked for.
        found, unused = find(cache_of(sim, replica), request, (prompt - 1) // block_size)
    spared = sim.settings.own[replica, Own.WATERMARK] if row[Replica.MEMBERS] else 0
    if -(-prompt // block_size) - found + unused + spared > row[Replica.FREE]:
        return False
    pop_front(state, replica)
    hits = found * block_size
    if sim.settings.prefix_caching:
        share(cache_of(sim, replica), request, found)
        row[Replica.PENDING] -= hits
    state.requests[request, Request.DONE] = hits
    slot = row[Replica.MEMBERS]
    row[Replica.MEMBERS] = slot + 1
    state.members[replica, slot] = request
    row[Replica.PARTIAL_DONE] += hits
    chunk = min(prompt - hits, sim.settings.batch_tokens - tokens)
    _extend(sim, replica, request, slot, chunk)
    if state.requests[request, Request.RESTARTS] == 0:
        state.times[request, Time.SCHEDULED] = now
        _note_hits(sim, request, hits)
        stop_expecting(state.expected, replica, request)
    return True


@compiled
def form_vllm_v1(sim: Simulation, replica: int, now: float) -> bool:
    """Form the next batch; return whether another may differ though nobody ends or arrives."""
    state, settings = sim.state, sim.settings
    row, prefixes = state.replicas[replica], state.prefixes
    assert prefixes is not None
    shelf, room = prefixes.shelves[replica], prefixes.extents.shape[1]
    if settings.prefix_caching and shelf[Shelf.EXTENTS] + EXTENTS_PER_BATCH > room:
        state.counters[Counter.OVERFLOW] = -1 - replica
        return False
    preempted = _take_blocks(sim, replica)
    row[Replica.DECODES] = 1
    if row[Replica.PARTIAL]:
        preempted = _continue_prompt(sim, replica) or preempted
    if preempted:
        find_next_finish(sim, replica)
        return True
    tokens = row[Replica.DECODING]
    if row[Replica.PARTIAL]:
        tokens += state.chunks[replica, row[Replica.MEMBERS] - 1]
    cap = settings.own[replica, Own.BATCH_CAP]
    while (
        row[Replica.WAITING] > 0
        and row[Replica.MEMBERS] < cap
        and tokens < settings.batch_tokens
        and _admit(sim, replica, now, tokens)
    ):
        tokens += state.chunks[replica, row[Replica.MEMBERS] - 1]
    # More may be found of what a waiting request needs as answers grow.
    return bool(settings.prefix_caching and row[Replica.WAITING] > 0 and row[Replica.MEMBERS] < cap)
