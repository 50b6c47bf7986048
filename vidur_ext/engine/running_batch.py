"""The batch that a replica has formed last, read off the state."""

from __future__ import annotations

from typing import NamedTuple

from vidur_ext.engine.layout import EngineState, Replica, Request


class RunningBatch(NamedTuple):
    """Request indices, new tokens and KV tokens (the new ones included) in the batch's order."""

    requests: list[int]
    q_tokens: list[int]
    kv_tokens: list[int]


def formed_batch(state: EngineState, replica: int) -> RunningBatch:
    """Return the batch that a replica has formed last, though it may be unable to start it."""
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
        (done[first:first_chunk] + row[Replica.ROUNDS] + 1).tolist()
        + (done[first_chunk:] + chunks).tolist(),
    )
