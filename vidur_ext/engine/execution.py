"""Compiled: how long the batch of a replica takes, summed in the order of Vidur's C++ predictor."""

from __future__ import annotations

from ppo_scheduler.compiled import compiled
from vidur_ext.engine.layout import (
    Batching,
    Own,
    Replica,
    Request,
    Settings,
    Simulation,
    Tables,
)

TOKENS_PER_ROW = 8
TOKENS_PER_CHUNK = 32
OUTSIDE = -1.0
"""Duration of a batch that the tables do not cover."""


@compiled
def _total(tables: Tables, kind: int, row: int, decode: float, prefill: float) -> float:
    """Sum one layer as Vidur does, over all layers, in seconds."""
    terms = tables.per_tokens[kind, row]
    attention = terms[0] + decode + prefill + terms[1] + terms[2]
    return (attention + terms[3] + terms[4]) * tables.num_layers * 1e-3


@compiled
def uncounted_tokens(settings: Settings) -> int:
    """Return how many more tokens Vidur's schedulers say a decoding request reads than it has."""
    return 0 if settings.scheduler == Batching.VLLM_V1 else 1


@compiled
def steady_iteration_s(sim: Simulation, replica: int) -> float:
    """Return the duration of the next round of all decoding requests, or OUTSIDE.

    Sets ROOM: every round adds one token to the mean context, and the tables step by kv_step.
    """
    tables, kind = sim.tables, sim.settings.own[replica, Own.KIND]
    state = sim.state.replicas[replica]
    count = state[Replica.DECODING]
    mean = state[Replica.OFFSETS] // count + state[Replica.ROUNDS] + uncounted_tokens(sim.settings)
    column = -(-mean // tables.kv_step)
    row = -(-count // TOKENS_PER_ROW)
    state[Replica.ROOM] = column * tables.kv_step - mean
    if (
        row >= tables.per_tokens.shape[1]
        or count >= tables.decode.shape[1]
        or column >= tables.decode.shape[2]
    ):
        return OUTSIDE
    return _total(tables, kind, row, tables.decode[kind, count, column], 0.0)


@compiled
def iteration_s(sim: Simulation, replica: int) -> float:
    """Return the duration of the batch that has been formed, or OUTSIDE.

    Like Vidur, takes every request with one new token for a decoding one, the last token of a
    prompt too.
    """
    tables, state, kind = sim.tables, sim.state, sim.settings.own[replica, Own.KIND]
    row = state.replicas[replica]
    count = row[Replica.DECODING] if row[Replica.DECODES] else 0
    context = (
        row[Replica.OFFSETS] + count * (row[Replica.ROUNDS] + uncounted_tokens(sim.settings))
        if count
        else 0
    )
    tokens = count
    prefill = 0.0
    for slot in range(row[Replica.DECODING], row[Replica.MEMBERS]):
        chunk = state.chunks[replica, slot]
        kv = state.requests[state.members[replica, slot], Request.DONE] + chunk
        tokens += chunk
        if chunk == 1:
            count += 1
            context += kv
            continue
        kv_index = -(-kv // tables.kv_step)
        chunk_index = -(-chunk // TOKENS_PER_CHUNK)
        if kv_index >= tables.prefill.shape[1] or chunk_index >= tables.prefill.shape[2]:
            return OUTSIDE
        prefill += tables.prefill[kind, kv_index, chunk_index]
    decode = 0.0
    if count:
        column = -(-(context // count) // tables.kv_step)
        if count >= tables.decode.shape[1] or column >= tables.decode.shape[2]:
            return OUTSIDE
        decode = tables.decode[kind, count, column]
    tokens_row = -(-tokens // TOKENS_PER_ROW)
    if tokens_row >= tables.per_tokens.shape[1]:
        return OUTSIDE
    return float(_total(tables, kind, tokens_row, decode, prefill))
