"""Attention times worked out by hand: laws alone let wrong formulas pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vidur_ext.execution_time.constants import AttentionConstants
from vidur_ext.execution_time.operators import Attention

# Numbers that are easy to divide by: a column of a wave is 4 * 128 rows * 128 wide * 2 * 100 SMs =
# 13,107,200 FLOP, that is 1e-4 ms; 8 heads 128 wide of 64 tokens are 65,536 numbers.
CONSTANTS = AttentionConstants(
    decode_gb_s=1024.0,
    decode_launch_ms=0.01,
    decode_wave_tail=0.5,
    decode_block_ms=0.002,
    decode_block_ms_per_token=1e-5,
    prefill_tflops=131.072,
    prefill_split_tflops=10.56964608,
    prefill_launch_ms=0.01,
    prefill_block_ms_per_token=1e-4,
    prefill_merge_ms=0.02,
    prefill_merge_gb_s=524.288,
)
ATTENTION = Attention(q_heads=8, kv_heads=4, head_dim=128, num_sms=100, constants=CONSTANTS)


@pytest.mark.parametrize(
    ("chunk", "kv", "expected"),
    [
        # 12800 * 2 / 128 = 200 blocks for each of 4 KV heads: 800, in 4 waves of 200.
        # Columns: 4 * 8000 of the cache + 12800 * (4/2 + 1/2) = 64,000.
        (12_800.0, 8000.0, 0.01 + 6.4),
        # No cache: 32,000 columns.
        (12_800.0, 0.0, 0.01 + 3.2),
        # 4 blocks, 164 tokens: one block works through them.
        (64.0, 100.0, 0.01 + 0.0164),
        # Split: merge 0.02, 8 * 65,536 B at 524.288 GB/s 0.001, 4 * 65,536 * (4000 + 32) FLOP 0.1.
        (64.0, 4000.0, 0.02 + 0.001 + 0.1),
        # Split is no faster than one block with 512 tokens.
        (64.0, 600.0, 0.01 + 0.0512),
    ],
)
def test_prefill(chunk: float, kv: float, expected: float) -> None:
    assert ATTENTION.prefill_ms(kv, chunk) == pytest.approx(expected, rel=1e-12)


def test_prefill_is_not_split_where_that_is_slower() -> None:
    slow = replace(CONSTANTS, prefill_split_tflops=1.056964608)  # 1.021 ms
    attention = replace(ATTENTION, constants=slow)
    # One wave: 4000 + 64 * (1/2 + 1/2) columns, and as many tokens of one block.
    assert attention.prefill_ms(4000.0, 64.0) == pytest.approx(0.01 + 0.4064, rel=1e-12)


@pytest.mark.parametrize(
    ("batch", "kv", "expected"),
    [
        # 25 * 4 blocks fill the 100 SMs once: 2 * 2 B * 128 * 100 * 2000 = 102.4 MB at 1024 GB/s.
        (25.0, 2000.0, 0.01 + 0.1),
        # 0.4 of a wave: the cache is shared out.
        (10.0, 2000.0, 0.01 + 0.04),
        # 1.2 waves: the begun one costs half a wave at least.
        (30.0, 2000.0, 0.01 + 0.15),
        # 1.8 waves.
        (45.0, 2000.0, 0.01 + 0.18),
        # One request with little to read: a block alone, 0.002 + 512 * 1e-5, is under 0.01.
        (1.0, 16.0, 0.01 + 0.04 * 0.0008),
    ],
)
def test_decode(batch: float, kv: float, expected: float) -> None:
    assert ATTENTION.decode_ms(batch, kv) == pytest.approx(expected, rel=1e-12)


def test_one_block_alone_bounds_decoding() -> None:
    slow = replace(CONSTANTS, decode_block_ms_per_token=1e-4)
    attention = replace(ATTENTION, constants=slow)
    # 512 tokens at most count for one block: 0.002 + 0.0512; the cache takes 0.01 + 0.004.
    assert attention.decode_ms(1.0, 2000.0) == pytest.approx(0.0532, rel=1e-12)
