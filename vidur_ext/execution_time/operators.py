"""Times of single operators on one device, for floats and for arrays alike.

Every formula is written once and evaluated by numpy or, ten times faster for one value, by plain
Python. Times are milliseconds; element size is two bytes (fp16 or bf16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vidur_ext.execution_time.constants import (
    AttentionConstants,
    GemmConstants,
    StreamConstants,
)

Values = TypeVar("Values", float, NDArray[np.float64])

BYTES = 2
TILE_ROWS = 128
BLOCKS_PER_SM = 2
SERIAL_KV_TOKENS = 512
PROFILED_HEAD_DIM = 128


class _Scalar:
    """The numpy functions used below, for plain floats."""

    maximum = staticmethod(max)
    minimum = staticmethod(min)
    ceil = staticmethod(math.ceil)
    floor = staticmethod(math.floor)

    @staticmethod
    def where(condition: bool, if_true: float, if_false: float) -> float:
        return if_true if condition else if_false


def _functions(values: Any) -> Any:
    return np if isinstance(values, np.ndarray) else _Scalar


@dataclass(frozen=True)
class Gemm:
    """Product of ``[tokens, k]`` with ``[k, n]`` weights.

    Roofline (Williams et al., 2009) of compute and memory time, joined by a p-norm: a hard
    maximum is too optimistic where the two are close.
    """

    k: int
    n: int
    constants: GemmConstants

    def ms(self, tokens: Values) -> Values:
        """Return the time for each token count."""
        c = self.constants
        compute = 2.0 * self.k * (self.n * tokens + c.fill_elements) / (c.tflops * 1e9)
        memory = BYTES * (self.k * self.n + tokens * (self.k + self.n)) / (c.gb_s * 1e6)
        return c.launch_ms + (compute**c.knee + memory**c.knee) ** (1.0 / c.knee)


@dataclass(frozen=True)
class Stream:
    """An element-wise operator that moves ``elements`` numbers per token."""

    elements: float
    constants: StreamConstants

    def ms(self, tokens: Values) -> Values:
        """Return the time for each token count."""
        c = self.constants
        return c.launch_ms + tokens * (BYTES * self.elements / (c.gb_s * 1e6))


@dataclass(frozen=True)
class Attention:
    """Attention of one layer on one device: ``q_heads`` share ``kv_heads`` (both per device)."""

    q_heads: int
    kv_heads: int
    head_dim: int
    num_sms: int
    constants: AttentionConstants

    @property
    def _width(self) -> float:
        """Head width relative to the profiled one: what a block does per token grows with it."""
        return self.head_dim / PROFILED_HEAD_DIM

    def decode_ms(self, batch: Values, kv: Values) -> Values:
        """Return the time to attend from ``batch`` new tokens to ``kv`` cached tokens each.

        Memory bound: one thread block reads one KV head of one request. A begun wave of blocks
        costs at least ``decode_wave_tail`` of a full one; fewer blocks than multiprocessors split
        the cache among themselves.
        """
        c, xp = self.constants, _functions(batch)
        blocks = batch * self.kv_heads / self.num_sms
        full = xp.floor(blocks)
        rest = blocks - full
        tail = xp.where(rest > 0.0, xp.maximum(rest, c.decode_wave_tail), 0.0)
        waves = xp.where(blocks <= 1.0, blocks, full + tail)
        wave_bytes = 2 * BYTES * self.head_dim * self.num_sms * kv
        per_token = c.decode_block_ms_per_token * self._width
        block_ms = c.decode_block_ms + per_token * xp.minimum(kv, SERIAL_KV_TOKENS)
        return xp.maximum(block_ms, c.decode_launch_ms + waves * wave_bytes / (c.decode_gb_s * 1e6))

    def prefill_ms(self, kv: Values, chunk: Values) -> Values:
        """Return the time to attend from a chunk of a prompt to itself and ``kv`` cached tokens.

        Compute bound: blocks of 128 query rows (the query heads of a KV head share a block) run
        two to a multiprocessor, in waves. Causality spares half the chunk, but the longest block
        holds up its wave: chunk * (1/2 + 1/(2 waves)) columns. Where the blocks do not fill the
        device, the kernel splits the cache and merges partial results.
        """
        c, xp = self.constants, _functions(chunk)
        blocks = xp.ceil(chunk * (self.q_heads / self.kv_heads) / TILE_ROWS) * self.kv_heads
        waves = xp.ceil(blocks / (BLOCKS_PER_SM * self.num_sms))
        columns = waves * kv + chunk * (0.5 * waves + 0.5)
        wave_flops = 4.0 * TILE_ROWS * self.head_dim * BLOCKS_PER_SM * self.num_sms
        in_waves = c.prefill_launch_ms + columns * wave_flops / (c.prefill_tflops * 1e9)

        total = kv + chunk
        per_token = c.prefill_block_ms_per_token * self._width
        one_block = c.prefill_launch_ms + per_token * total
        rows = chunk * self.q_heads * self.head_dim
        split = (
            c.prefill_merge_ms
            + 8.0 * rows / (c.prefill_merge_gb_s * 1e6)  # fp32 partial results out and in
            + 4.0 * rows * (kv + 0.5 * chunk) / (c.prefill_split_tflops * 1e9)
        )
        least = c.prefill_launch_ms + per_token * SERIAL_KV_TOKENS
        # The profiled kernel splits even where that is slower; taking the faster of both keeps
        # the model monotone in the chunk size.
        split = xp.minimum(xp.maximum(split, least), xp.maximum(in_waves, one_block))
        few_blocks = xp.where(total <= SERIAL_KV_TOKENS, one_block, split)
        return xp.where(blocks <= self.num_sms, few_blocks, in_waves)
