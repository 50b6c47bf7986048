"""What a predictor needs of a batch, with the irregularities of Vidur's schedulers removed."""

from __future__ import annotations

from typing import Any

from vidur.entities import KVParallelBatch

from vidur_ext.execution_time.tables import CHUNK_STEP, TOKEN_STEP, round_up


def token_lists(batch: Any) -> tuple[list[int], list[int]]:
    """Return new tokens and KV tokens, the new ones included, of each request in a batch.

    Vidur's Sarathi and vLLM schedulers count so. Its Mnemosyne schedulers leave the new tokens
    out and wrap the batch; its Orca scheduler leaves out the KV tokens of new requests, which
    come last and have none cached.
    """
    if isinstance(batch, KVParallelBatch):
        (only,) = batch.batch_mapping.values()
        pairs = zip(only.num_q_tokens, only.num_kv_tokens, strict=True)
        return only.num_q_tokens, [q + kv for q, kv in pairs]
    q, kv = batch.num_q_tokens, batch.num_kv_tokens
    return q, kv if len(kv) == len(q) else kv + q[len(kv) :]


class BatchKeys:
    """The table keys of one batch, rounded as Vidur's C++ predictor rounds them."""

    def __init__(self, batch: Any, kv_granularity: int) -> None:
        q_tokens, kv_tokens = token_lists(batch)
        decode_kv = [kv for q, kv in zip(q_tokens, kv_tokens, strict=True) if q == 1]
        self.rounded_tokens = round_up(sum(q_tokens), TOKEN_STEP)
        self.decodes = len(decode_kv)
        mean_kv = sum(decode_kv) // max(len(decode_kv), 1)
        self.decode_kv = round_up(mean_kv, kv_granularity)
        self.prefills = [
            (round_up(kv, kv_granularity), round_up(q, CHUNK_STEP))
            for q, kv in zip(q_tokens, kv_tokens, strict=True)
            if q != 1
        ]
