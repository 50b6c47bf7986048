"""Compiled: which requests form a replica's next batch, as Vidur's replica schedulers choose."""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from vidur_ext.engine.execution import OUTSIDE, iteration_s, steady_iteration_s
from vidur_ext.engine.layout import (
    Batching,
    Clock,
    Counter,
    Own,
    Prefixes,
    Replica,
    Request,
    Simulation,
    Time,
)
from vidur_ext.engine.preemption import take_blocks
from vidur_ext.engine.queues import pop_front
from vidur_ext.engine.vllm_v1 import form_vllm_v1


@compiled
def _admit(sim: Simulation, replica: int, now: float, blocks: int, chunk: int) -> None:
    """Give the first waiting request its blocks and a chunk of the batch."""
    state = sim.state
    row = state.replicas[replica]
    request = pop_front(state, replica)
    row[Replica.FREE] -= blocks
    slot = row[Replica.MEMBERS]
    state.members[replica, slot] = request
    state.chunks[replica, slot] = chunk
    row[Replica.MEMBERS] = slot + 1
    if state.requests[request, Request.RESTARTS] == 0:
        state.times[request, Time.SCHEDULED] = now


@compiled
def _continue_prompt(sim: Simulation, replica: int) -> int:
    """Give the begun prompt what the decoding requests leave of Sarathi's chunk; return it.

    A prompt stays unfinished only by taking the last tokens of a chunk. So there is at most one,
    it is the last member, and since it took a token, fewer requests decode than a chunk holds:
    Vidur's code for skipping a prompt is never needed.
    """
    state = sim.state
    row = state.replicas[replica]
    if not row[Replica.PARTIAL]:
        return 0
    slot = row[Replica.MEMBERS] - 1
    request = state.members[replica, slot]
    remaining = state.requests[request, Request.PROMPT] - state.requests[request, Request.DONE]
    chunk = min(remaining, sim.settings.batch_tokens - row[Replica.DECODING])
    state.chunks[replica, slot] = chunk
    return int(chunk)


@compiled
def _form_sarathi(sim: Simulation, replica: int, now: float) -> bool:
    """Decoding requests, the begun prompt, then new ones; return whether some were restarted."""
    settings, state = sim.settings, sim.state
    row = state.replicas[replica]
    restarted = take_blocks(sim, replica)
    row[Replica.DECODES] = 1
    tokens = row[Replica.DECODING] + _continue_prompt(sim, replica)
    while row[Replica.WAITING] > 0 and row[Replica.MEMBERS] < settings.own[replica, Own.BATCH_CAP]:
        prompt = state.requests[row[Replica.HEAD], Request.PROMPT]
        blocks = -(-prompt // settings.block_size)
        chunk = min(prompt, settings.batch_tokens - tokens)
        if row[Replica.FREE] - blocks < settings.own[replica, Own.WATERMARK] or chunk <= 0:
            break
        _admit(sim, replica, now, blocks, chunk)
        tokens += chunk
    return restarted


@compiled
def _form_vllm(sim: Simulation, replica: int, now: float) -> bool:
    """New requests alone where they fit, else all decoding ones; return whether some restarted.

    Vidur sorts the decoding ones by arrival. They always are: requests are admitted in that order,
    and preempted from the back of the list to the front of the queue.
    """
    settings, state = sim.settings, sim.state
    row = state.replicas[replica]
    row[Replica.DECODES] = 0
    tokens = 0
    while row[Replica.WAITING] > 0 and row[Replica.MEMBERS] < settings.own[replica, Own.BATCH_CAP]:
        prompt = state.requests[row[Replica.HEAD], Request.PROMPT]
        blocks = -(-prompt // settings.block_size)
        if (
            row[Replica.FREE] - blocks < settings.own[replica, Own.WATERMARK]
            or tokens + prompt > settings.batch_tokens
        ):
            break
        _admit(sim, replica, now, blocks, prompt)
        tokens += prompt
    if tokens > 0:
        return False
    row[Replica.DECODES] = 1
    return take_blocks(sim, replica)


@compiled
def _form_orca(sim: Simulation, replica: int, now: float) -> None:
    """All running requests, then new ones with blocks for the longest request."""
    settings, state = sim.settings, sim.state
    row = state.replicas[replica]
    row[Replica.DECODES] = 1
    while row[Replica.WAITING] > 0 and row[Replica.MEMBERS] < settings.own[replica, Own.BATCH_CAP]:
        if row[Replica.FREE] < settings.flat_blocks:
            break
        prompt = state.requests[row[Replica.HEAD], Request.PROMPT]
        _admit(sim, replica, now, settings.flat_blocks, prompt)


@compiled
def _form(prefixes: Prefixes | None, sim: Simulation, replica: int, now: float) -> bool:
    """Form a batch; return whether the next one may differ though nobody ends or arrives.

    Without ``prefixes`` V1 is not compiled.
    """
    if sim.settings.scheduler == Batching.SARATHI:
        return _form_sarathi(sim, replica, now)
    if sim.settings.scheduler == Batching.VLLM:
        return _form_vllm(sim, replica, now)
    if sim.settings.scheduler == Batching.ORCA:
        _form_orca(sim, replica, now)
        return False
    if prefixes is not None:
        return form_vllm_v1(sim, replica, now)
    return False


@compiled
def start_batch(sim: Simulation, replica: int, now: float) -> bool:
    """Form the next batch of an idle replica; return whether there is one.

    A batch of decoding requests only is steady: whoever waits cannot be admitted before a request
    completes, because free blocks only shrink until then.
    """
    state = sim.state
    row = state.replicas[replica]
    row[Replica.STEADY] = 0
    unsteady = _form(sim.state.prefixes, sim, replica, now)
    if row[Replica.MEMBERS] == 0:
        return False
    if row[Replica.DECODING] == row[Replica.MEMBERS]:
        duration = steady_iteration_s(sim, replica)
        row[Replica.STEADY] = 0 if unsteady else 1
    else:
        duration = iteration_s(sim, replica)
    if duration == OUTSIDE:
        state.counters[Counter.OVERFLOW] = replica + 1
        return False
    state.clocks[replica, Clock.ITERATION] = duration
    state.clocks[replica, Clock.BATCH_END] = now + duration
    return True
