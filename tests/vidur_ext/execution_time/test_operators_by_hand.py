"""Times worked out by hand from kernels that take twice what the data sheet allows.

The sheet: 100 TFLOP/s in bf16, 200 in fp8, 1000 GB/s. Floors: 0.003 ms a product, 0.006 attention.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidur_ext.execution_time.kernels import Grid
from vidur_ext.execution_time.operators import Attention, Curve, Elementwise, Gemm


@pytest.mark.parametrize(
    ("weights", "tokens", "expected_ms"),
    [
        # 2 * 1024^3 FLOP at 100 TFLOP/s are 0.02147 ms; 3 * 2 MiB at 1000 GB/s are 0.00629.
        ("bf16", 1024.0, 2 * (0.003 + 0.02147483648)),
        # Half as long in fp8; a byte of each factor and two of the product are 0.00419 ms.
        ("fp8", 1024.0, 2 * (0.003 + 0.01073741824)),
        # One token: the weights are read, 2 MiB and 4 KiB in all.
        ("bf16", 1.0, 2 * (0.003 + (2097152 + 2 * 2048) / 1e9)),
        # Between 1 and 64 tokens in proportion: here half the way.
        (
            "bf16",
            32.5,
            2 * 0.003 + (2097152 + 2 * 2048) / 1e9 + (2097152 + 64 * 2 * 2048) / 1e9,
        ),
    ],
)
def test_a_product(halved, sheet, weights, tokens, expected_ms) -> None:
    product = Gemm(1024, 1024, weights, halved, sheet, 1.0)
    assert product.ms(tokens) == pytest.approx(expected_ms, rel=1e-9)
    assert replace(product, factor=1.5).ms(tokens) == pytest.approx(1.5 * expected_ms, rel=1e-9)


def test_beyond_what_was_measured_products_grow_as_before(halved, sheet) -> None:
    product = Gemm(1024, 1024, "bf16", halved, sheet, 1.0)
    at = [float(product.ms(tokens)) for tokens in (1024.0, 16384.0, 31744.0)]
    assert at[2] - at[1] == pytest.approx(at[1] - at[0], rel=1e-9)


def test_a_relative_has_its_own_data_sheet(halved, sheet) -> None:
    slow = replace(sheet, tflops=(("bf16", 50.0),))
    product = Gemm(1024, 1024, "bf16", halved, slow, 1.0)
    assert product.ms(1024.0) == pytest.approx(2 * (0.003 + 2 * 0.02147483648), rel=1e-9)


def test_what_a_larger_size_does_faster_a_smaller_one_does_too() -> None:
    curve = Curve.never_falling(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 2.0]))
    times = [float(curve.at(size)) for size in (0.5, 1.0, 1.5, 2.5, 3.0, 4.0)]
    assert times == [1.0, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_element_wise_operators_move_two_bytes_per_number() -> None:
    assert Elementwise(1000.0, 0.002, 500.0).ms(100.0) == pytest.approx(0.002 + 2e5 / 5e8)


@pytest.mark.parametrize(
    ("kv_heads", "batch", "kv", "expected_ms"),
    [
        # 4 B * 128 wide * 8 heads * 64 requests * 1024 tokens: 268 MB at 1000 GB/s.
        (8, 64.0, 1024.0, 2 * (0.006 + 0.268435456)),
        # Fewer heads, less to read.
        (2, 64.0, 1024.0, 2 * (0.006 + 0.067108864)),
        # More than 8 heads are as more requests of 8.
        (32, 16.0, 1024.0, 2 * (0.006 + 0.268435456)),
        # Half the way between 1024 and 16384 tokens.
        (8, 64.0, 8704.0, 2 * (0.006 + 0.268435456 * 8.5)),
    ],
)
def test_decode(halved, sheet, kv_heads, batch, kv, expected_ms) -> None:
    attention = Attention(kv_heads * 4, kv_heads, 128, halved, sheet, 1.0)
    assert attention.decode_ms(batch, kv) == pytest.approx(expected_ms, rel=1e-9)
    wide = Attention(kv_heads * 4, kv_heads, 256, halved, sheet, 1.0)
    assert wide.decode_ms(batch, kv) == pytest.approx(2 * expected_ms - 0.012, rel=1e-9)


@pytest.mark.parametrize(
    ("kv", "chunk", "expected_ms"),
    [
        # 4 * 128 * 8 heads * 1024 * 512 FLOP at 100 TFLOP/s.
        (0.0, 1024.0, 2 * (0.006 + 0.02147483648)),
        # 512 tokens behind 1792: as many pairs more as seven prompts of 512, in a prompt of
        # sqrt(2 * (512 * 1792 + 512 * 256)) = 1448.15 tokens, 0.41423 of the way from 1024.
        (
            1792.0,
            512.0,
            2 * (0.006 + 0.00536870912)
            + 7 / 8 * 2 * (0.006 + 0.02147483648 * (1 + 3 * 0.414213562373)),
        ),
        # 32 tokens behind 512: each pair costs as in a prompt of 512.
        (
            512.0,
            32.0,
            2 * (0.006 + 4096.0 * 0.5 * (1 + 31 / 511 * (512**2 - 1)) / 1e11)
            + 32 * 512 / (0.5 * 512**2) * 2 * (0.006 + 0.00536870912),
        ),
    ],
)
def test_prefill(halved, sheet, kv, chunk, expected_ms) -> None:
    attention = Attention(8, 2, 128, halved, sheet, 1.0)
    assert attention.prefill_ms(kv, chunk) == pytest.approx(expected_ms, rel=1e-9)


def test_a_ratio_between_sizes_is_interpolated_over_logarithms() -> None:
    axes = tuple(np.array(axis, dtype=float) for axis in ([1, 16], [10, 1000], [1, 2]))
    ratios = np.log([[[1, 1], [4, 4]], [[16, 16], [64, 64]]])
    grid = Grid(axes, ratios)
    assert grid.along_last(4.0, 10.0) == pytest.approx([4.0, 4.0])
    assert grid.along_last(4.0, 100.0) == pytest.approx([8.0, 8.0])
    assert grid.along_last(64.0, 5000.0) == pytest.approx([64.0, 64.0])  # as at the end
