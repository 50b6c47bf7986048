"""Times [ms] of single operators on one device, from its measured kernels.

Between measured sizes times are interpolated linearly. Where a larger size was faster, its time
stands for the smaller one too, which could be padded: a larger batch is never predicted to be
faster. Beyond the largest size times go on as they grew between the last two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from vidur_ext.execution_time import kernels
from vidur_ext.execution_time.kernels import DataSheet, ExpertShape, Floats, Grid, Kernels

Values = TypeVar("Values", float, Floats)

_MOST_KV_HEADS = 8
"""Measured per request; more of them are as as many more requests."""
_SMALLEST_SPLIT_TOKENS = 512.0
"""Below, a prompt does not fill a device: what more context costs is that of such a prompt."""


@dataclass(frozen=True)
class Curve:
    """Times over one size."""

    sizes: Floats
    ms: Floats

    @classmethod
    def never_falling(cls, sizes: Floats, ms: Floats) -> Curve:
        """Return a curve through the points, or below those that a larger size falls behind."""
        return cls(sizes, _never_falling(ms))

    def at(self, size: Values) -> Values:
        """Return the time at each size, at least that of the smallest."""
        low, share = _segment(self.sizes, size)
        return self.ms[low] + share * (self.ms[low + 1] - self.ms[low])


def _never_falling(ms: Floats, axis: int = 0) -> Floats:
    """Return the least of each time and those after it."""
    least: Floats = np.flip(np.minimum.accumulate(np.flip(ms, axis), axis), axis)
    return least


def _segment(axis: Floats, value: Values) -> tuple[Any, Any]:
    """Return the segment of an axis in which a value lies, and where; beyond the last, above 1."""
    low = np.clip(np.searchsorted(axis, value, side="right") - 1, 0, len(axis) - 2)
    return low, np.maximum((value - axis[low]) / (axis[low + 1] - axis[low]), 0.0)


@dataclass(frozen=True)
class Gemm:
    """Product of ``[tokens, k]`` with weights ``[k, n]`` of type ``weights``."""

    k: int
    n: int
    weights: str
    measured: Kernels
    sheet: DataSheet
    factor: float

    @cached_property
    def _curve(self) -> Curve:
        grid = self.measured.gemm[self.weights]
        tokens = grid.axes[-1]
        bound = kernels.gemm_bound_ms(self.sheet, self.weights, tokens, self.n, self.k)
        return Curve.never_falling(tokens, self.factor * bound * grid.along_last(self.k, self.n))

    def ms(self, tokens: Values) -> Values:
        """Return the time for each token count."""
        return self._curve.at(tokens)


@dataclass(frozen=True)
class Experts:
    """The experts of one layer, each split over ``split`` devices, behind their router."""

    shape: ExpertShape
    weights: str
    split: int
    measured: Grid
    sheet: DataSheet
    factor: float

    @cached_property
    def _curve(self) -> Curve:
        tokens = self.measured.axes[-1]
        bound = kernels.experts_bound_ms(self.sheet, self.weights, self.shape, tokens)
        ratio = self.measured.along_last(self.split)
        return Curve.never_falling(tokens, self.factor * bound * ratio)

    def ms(self, tokens: Values) -> Values:
        """Return the time for each token count."""
        return self._curve.at(tokens)


@dataclass(frozen=True)
class Elementwise:
    """An operator that moves ``elements`` numbers per token at a share of the memory's rate."""

    elements: float
    launch_ms: float
    gb_s: float

    def ms(self, tokens: Values) -> Values:
        """Return the time for each token count."""
        return self.launch_ms + tokens * (2.0 * self.elements / (self.gb_s * 1e6))


Operator = Gemm | Experts | Elementwise
"""What takes time by the tokens of a batch alone."""


@dataclass(frozen=True)
class Attention:
    """Attention of one layer on one device: ``q_heads`` share ``kv_heads`` (both per device)."""

    q_heads: int
    kv_heads: int
    head_dim: int
    measured: Kernels
    sheet: DataSheet
    factor: float

    @property
    def _width(self) -> float:
        """Head width relative to the measured one: traffic and work grow with it."""
        return self.head_dim / kernels.HEAD_DIM

    @cached_property
    def _decode(self) -> tuple[Floats, Floats, Floats]:
        """Requests, KV tokens, and the times of every pair of them."""
        grid, heads = self.measured.decode, min(self.kv_heads, _MOST_KV_HEADS)
        group = self.q_heads / self.kv_heads
        batch, kv = grid.axes[2:]
        rows = []
        for requests in batch:
            bound = kernels.decode_bound_ms(self.sheet, heads * self._width, requests, kv)
            rows.append(self.factor * bound * grid.along_last(group, heads, requests))
        return batch, kv, _never_falling(_never_falling(np.array(rows)), axis=1)

    def decode_ms(self, batch: Values, kv: Values) -> Values:
        """Return the time to attend from ``batch`` new tokens to ``kv`` cached tokens each."""
        sizes, contexts, ms = self._decode
        row, down = _segment(sizes, batch * max(self.kv_heads / _MOST_KV_HEADS, 1.0))
        column, right = _segment(contexts, kv)
        above = ms[row, column] + right * (ms[row, column + 1] - ms[row, column])
        below = ms[row + 1, column] + right * (ms[row + 1, column + 1] - ms[row + 1, column])
        return above + down * (below - above)

    @cached_property
    def _prompt(self) -> Curve:
        """Whole prompts, by their tokens."""
        grid = self.measured.prefill
        tokens = grid.axes[-1]
        bound = kernels.prefill_bound_ms(self.sheet, self.q_heads * self._width, tokens)
        return Curve.never_falling(tokens, self.factor * bound * grid.along_last(self.q_heads))

    def prefill_ms(self, kv: Values, chunk: Values) -> Values:
        """Return the time to attend from a chunk of a prompt to itself and ``kv`` cached tokens.

        Only whole prompts were measured. What is cached costs as much per pair of tokens as a
        prompt with as many pairs.
        """
        pairs = chunk * (kv + 0.5 * chunk)
        like = np.maximum(np.sqrt(2.0 * pairs), _SMALLEST_SPLIT_TOKENS)
        per_pair = self._prompt.at(like) / (0.5 * like * like)
        return self._prompt.at(chunk) + chunk * kv * per_pair
