"""Kernels that are easy to calculate with: twice what the data sheet allows, everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.execution_time.kernels import DataSheet, Grid, Kernels

SHEET = DataSheet((("bf16", 100.0), ("fp8", 200.0)), 1000.0)


def _grid(value: float, *axes: list[float]) -> Grid:
    sizes = tuple(np.array(axis, dtype=float) for axis in axes)
    return Grid(sizes, np.full([len(axis) for axis in axes], np.log(value)))


@pytest.fixture
def sheet() -> DataSheet:
    return SHEET


@pytest.fixture
def halved() -> Kernels:
    heads, sides = [1.0, 2.0, 4.0, 8.0], [64.0, 1024.0, 16384.0]
    tokens = [1.0, 64.0, 1024.0, 16384.0]
    return Kernels(
        sheet=SHEET,
        gemm={weights: _grid(2.0, sides, sides, tokens) for weights in ("bf16", "fp8")},
        decode=_grid(2.0, heads, heads, [1.0, 64.0, 1024.0], [2.0, 1024.0, 16384.0]),
        prefill=_grid(2.0, [1.0, 64.0], [1.0, 512.0, 1024.0, 2048.0, 16384.0]),
        all_reduce_ms=None,
        moe={},
    )
