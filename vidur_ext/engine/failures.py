"""Why a simulation ended before every request was served."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ppo_scheduler.errors import UserError
from vidur_ext.engine.execution import uncounted_tokens
from vidur_ext.engine.layout import (
    EXTENTS_PER_BATCH,
    Batching,
    Counter,
    Own,
    Replica,
    Request,
    Simulation,
)
from vidur_ext.execution_time.tables import TableLimits


def check_end(sim: Simulation, limits: TableLimits) -> None:
    """Check a simulation that does not go on.

    Raises:
        UserError: a batch exceeds the execution-time tables, or a request can never be served.
    """
    counters = sim.state.counters
    if counters[Counter.OVERFLOW]:
        raise UserError(_overflow(sim, limits))
    if counters[Counter.FINISHED] < len(sim.state.requests):
        raise UserError(_starvation(sim))


def _starvation(sim: Simulation) -> str:
    """Say why the request that waits first on some replica never got into a batch."""
    settings, state = sim.settings, sim.state
    replica = int(np.flatnonzero(state.replicas[:, Replica.WAITING])[0])
    request = int(state.replicas[replica, Replica.HEAD])
    prompt = int(state.requests[request, Request.PROMPT])
    if settings.scheduler == Batching.VLLM and prompt > settings.batch_tokens:
        return (
            f"request {request} can never be served: its {prompt} prompt tokens exceed vLLM's "
            f"{settings.batch_tokens} tokens in a batch: raise cluster.max_tokens_in_batch or "
            "lower workload.max_tokens"
        )
    return (
        f"request {request} can never be served: its {prompt} prompt tokens do not fit into "
        f"{settings.num_blocks[replica]} KV blocks of {settings.block_size} tokens, less "
        f"{settings.own[replica, Own.WATERMARK]} that stay free: raise cluster.num_blocks or lower "
        "workload.max_tokens"
    )


def _overflow(sim: Simulation, limits: TableLimits) -> str:
    """Say which limit the batch that could not start exceeds."""
    replica = int(sim.state.counters[Counter.OVERFLOW]) - 1
    prefixes = sim.state.prefixes
    if replica < 0 and prefixes is not None:
        return (
            f"the prefix cache of replica {-replica - 2} is in more than "
            f"{prefixes.extents.shape[1] - EXTENTS_PER_BATCH} pieces, for which there is no room: "
            "simulate fewer requests at a time, or set cluster.prefix_caching to false"
        )
    _, q_tokens, kv_tokens = formed_batch(sim, replica)
    violation = limits.violation(q_tokens, kv_tokens)
    assert violation is not None, "only a batch beyond the tables overflows"
    return violation


class RunningBatch(NamedTuple):
    """Request indices, new tokens and KV tokens (the new ones included) in the batch's order."""

    requests: list[int]
    q_tokens: list[int]
    kv_tokens: list[int]


def formed_batch(sim: Simulation, replica: int) -> RunningBatch:
    """Return the batch that a replica has formed last, though it may be unable to start it."""
    state, more = sim.state, uncounted_tokens(sim.settings)
    row = state.replicas[replica]
    first_chunk = int(row[Replica.DECODING])
    members = state.members[replica, : row[Replica.MEMBERS]].tolist()
    done = state.requests[members, Request.DONE]
    first = 0 if row[Replica.DECODES] else first_chunk
    decoding, prompts = members[first:first_chunk], members[first_chunk:]
    chunks = state.chunks[replica, first_chunk : row[Replica.MEMBERS]]
    return RunningBatch(
        decoding + prompts,
        [1] * len(decoding) + chunks.tolist(),
        (done[first:first_chunk] + row[Replica.ROUNDS] + more).tolist()
        + (done[first_chunk:] + chunks).tolist(),
    )
