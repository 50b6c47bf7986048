"""The roofline as tables, keyed the way Vidur's predictors round a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ppo_scheduler.observation import Floats
from vidur_ext.execution_time.roofline import RooflineModel

TOKEN_STEP = 8
CHUNK_STEP = 32

NativeKeys = list[tuple[int, int]]


def round_up(value: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is not below ``value``."""
    return -(-value // step) * step


@dataclass(frozen=True)
class TableLimits:
    """The largest keys of the tables, and the flags that set them.

    Args:
        max_tokens: tokens of a batch, a multiple of 8.
        max_batch_size: decoding requests of a batch.
        max_kv_tokens: KV tokens of a request, a multiple of ``kv_granularity``.
        kv_granularity: step of the KV keys.
        max_chunk_tokens: prompt tokens of one request in a batch, a multiple of 32.
        flag_prefix: what precedes the field's name in the command line.
    """

    max_tokens: int
    max_batch_size: int
    max_kv_tokens: int
    kv_granularity: int
    max_chunk_tokens: int
    flag_prefix: str

    def violation(self, num_q_tokens: Sequence[int], num_kv_tokens: Sequence[int]) -> str | None:
        """Say which limit a batch exceeds and how to raise it, or None."""
        decodes = sum(1 for q in num_q_tokens if q == 1)
        chunk = max((q for q in num_q_tokens if q != 1), default=0)
        per_chunk = "prediction_max_prefill_chunk_size"
        checks = (
            ("tokens", sum(num_q_tokens), self.max_tokens, per_chunk),
            ("tokens of one prompt", chunk, self.max_chunk_tokens, per_chunk),
            ("decoding requests", decodes, self.max_batch_size, "prediction_max_batch_size"),
            (
                "KV tokens of one request",
                max(num_kv_tokens, default=0),
                self.max_kv_tokens,
                "prediction_max_tokens_per_request",
            ),
        )
        for what, value, limit, field in checks:
            if value > limit:
                return (
                    f"a batch has {value} {what}, the execution-time tables end at {limit}: "
                    f"raise {self.flag_prefix}{field}"
                )
        return None


@dataclass(frozen=True)
class PredictionTables:
    """Operator times [ms].

    ``tokens[op][t]``: operator ``op`` of a batch of t tokens, [max_tokens + 1].
    ``decode[n, i]``: n decoding requests of i * kv_granularity KV tokens each.
    ``prefill[i, j]``: a chunk of j * 32 tokens that brings its request to i * kv_granularity.
    """

    limits: TableLimits
    tokens: dict[str, Floats]
    decode: Floats
    prefill: Floats

    def native_arguments(self) -> dict[str, Any]:
        """Return operators, keys and values as Vidur's C++ predictor takes them."""
        kv_step = self.limits.kv_granularity
        entries: dict[str, tuple[NativeKeys, list[float]]] = {}
        for name, values in self.tokens.items():
            counts = range(TOKEN_STEP, len(values), TOKEN_STEP)
            entries[name] = ([(count, -1) for count in counts], values[counts].tolist())
        batches, kvs = (range(size) for size in self.decode.shape)
        entries["attn_decode"] = (
            [(batch, kv * kv_step) for batch in batches[1:] for kv in kvs],
            self.decode[1:].ravel().tolist(),
        )
        kvs, chunks = (range(size) for size in self.prefill.shape)
        entries["attn_prefill"] = (
            [(kv * kv_step, chunk * CHUNK_STEP) for kv in kvs for chunk in chunks[1:]],
            self.prefill[:, 1:].ravel().tolist(),
        )
        return {
            "prediction_ops": list(entries),
            "prediction_keys": [keys for keys, _ in entries.values()],
            "prediction_values": [values for _, values in entries.values()],
        }


@lru_cache(maxsize=32)
def build_tables(roofline: RooflineModel, limits: TableLimits) -> PredictionTables:
    """Evaluate the roofline at every key; the same arguments give the same object again.

    The time of an iteration outside the layers rides on ``add``, divided by the layers: Vidur
    sums layers and knows no such time. With pipeline stages each stage so bears its share.
    """
    count = np.arange(limits.max_tokens + 1, dtype=np.float64)
    tokens = {name: operator.ms(count) for name, operator in roofline.token_operators.items()}
    tokens["add"] = tokens["add"] + roofline.iteration_overhead(count) / roofline.model.num_layers
    if roofline.tensor_parallel > 1:
        tokens["all_reduce"] = roofline.all_reduce(count)
    if roofline.num_pipeline_stages > 1:
        tokens["send_recv"] = roofline.send_recv(count)

    batch = np.arange(limits.max_batch_size + 1, dtype=np.float64)
    kv = np.arange(0, limits.max_kv_tokens + 1, limits.kv_granularity, dtype=np.float64)
    chunk = np.arange(0, limits.max_chunk_tokens + 1, CHUNK_STEP, dtype=np.float64)
    # Vidur counts the chunk among the request's KV tokens; the kernel's cache is what precedes it.
    cached = np.maximum(kv[:, None] - chunk[None, :], 0.0)
    return PredictionTables(
        limits=limits,
        tokens=tokens,
        decode=roofline.attn_decode(batch[:, None], kv[None, :]),
        prefill=roofline.attn_prefill(cached, np.broadcast_to(chunk[None, :], cached.shape)),
    )
