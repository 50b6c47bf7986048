"""Measured kernels of a device: how much slower than its data sheet each kind of kernel is.

A file ``measured/NAME.npz`` holds, over a grid of sizes, the logarithm of measured time over the
time that the data sheet allows (``gemm_bound_ms`` and its like). Between the points of a grid that
ratio changes little where times change by orders of magnitude, so it is what is interpolated; and
a relative of the device, another data sheet with the same kernels, gets times of its own from it.

``benchmarks/fit_predictor.py`` makes the files from the tables of AIConfigurator (NVIDIA,
Apache-2.0), which were measured with vLLM's kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError

Floats = NDArray[np.float64]
Sizes = float | Floats

GEMM_FLOOR_MS = 0.003
ATTENTION_FLOOR_MS = 0.006
"""What any kernel takes to begin and end; it keeps ratios of tiny kernels within reason."""

HEAD_DIM = 128
"""Width of the measured heads."""

BYTES = {"bf16": 2, "fp8": 1}
"""Of a weight, by the type of weights; what is computed with them has as many."""


@dataclass(frozen=True)
class DataSheet:
    """What the vendor states: dense tensor TFLOP/s by type of weights, and memory GB/s."""

    tflops: tuple[tuple[str, float], ...]
    memory_gb_s: float

    def rate(self, weights: str) -> float:
        """Return TFLOP/s for a type of weights that the device computes with."""
        return dict(self.tflops)[weights]


def gemm_bound_ms(sheet: DataSheet, weights: str, m: Sizes, n: Sizes, k: Sizes) -> Any:
    """Return the time of ``[m, k] x [k, n]`` at the data sheet's rates, and the floor."""
    compute = 2.0 * m * n * k / (sheet.rate(weights) * 1e9)
    moved = BYTES[weights] * (n * k + m * k) + 2.0 * m * n
    return GEMM_FLOOR_MS + np.maximum(compute, moved / (sheet.memory_gb_s * 1e6))


def decode_bound_ms(sheet: DataSheet, kv_heads: Sizes, batch: Sizes, kv: Sizes) -> Any:
    """Return the time to read the keys and values of ``batch`` requests once, and the floor."""
    moved = 4.0 * HEAD_DIM * kv_heads * batch * kv
    return ATTENTION_FLOOR_MS + moved / (sheet.memory_gb_s * 1e6)


def prefill_flops(q_heads: Sizes, kv: Sizes, chunk: Sizes) -> Any:
    """Return the work of a causal chunk that attends to itself and to ``kv`` tokens before it."""
    return 4.0 * HEAD_DIM * q_heads * chunk * (kv + 0.5 * chunk)


def prefill_bound_ms(sheet: DataSheet, q_heads: Sizes, chunk: Sizes) -> Any:
    """Return the time of a whole prompt's attention at the data sheet's rate, and the floor."""
    work = prefill_flops(q_heads, 0.0, chunk)
    return ATTENTION_FLOOR_MS + work / (sheet.rate("bf16") * 1e9)


@dataclass(frozen=True)
class ExpertShape:
    """The experts of a layer on one device: three matrices each, ``hidden`` wide on it."""

    embedding_dim: int
    hidden: float
    per_token: int
    experts: int


def experts_key(weights: str, embedding_dim: int, hidden: int, per_token: int, experts: int) -> str:
    """Return under what name a layer of experts was measured."""
    return f"moe_{weights}_{embedding_dim}_{hidden}_{per_token}_{experts}"


def experts_bound_ms(sheet: DataSheet, weights: str, shape: ExpertShape, tokens: Sizes) -> Any:
    """Return the time to read the experts that tokens go to, or to compute them, and the floor."""
    one = 3.0 * shape.embedding_dim * shape.hidden
    compute = 2.0 * one * shape.per_token * tokens / (sheet.rate(weights) * 1e9)
    missed = (1.0 - shape.per_token / shape.experts) ** tokens
    read = BYTES[weights] * one * shape.experts * (1.0 - missed) / (sheet.memory_gb_s * 1e6)
    return GEMM_FLOOR_MS + np.maximum(compute, read)


@dataclass(frozen=True)
class Grid:
    """The logarithm of measured time over bound, at each point of a grid of sizes."""

    axes: tuple[Floats, ...]
    log_ratio: Floats

    def along_last(self, *sizes: float) -> Floats:
        """Return the ratios along the last axis, for sizes of all axes before it."""
        values = self.log_ratio
        for axis, size in zip(self.axes, sizes, strict=False):
            low, share = _place(axis, size)
            values = values[low] + share * (values[min(low + 1, len(axis) - 1)] - values[low])
        return np.exp(values)


def _place(axis: Floats, size: float) -> tuple[int, float]:
    """Return where a size lies on a logarithmic axis; beyond its ends, at the end."""
    position = float(np.interp(np.log(size), np.log(axis), np.arange(len(axis), dtype=float)))
    low = min(int(position), len(axis) - 1)
    return low, position - low


@dataclass(frozen=True)
class Kernels:
    """The measured kernels of a device.

    ``gemm``: by type of weights, over (k, n, m). ``decode``: over (query heads per KV head, KV
    heads, requests, KV tokens). ``prefill``: over (query heads, prompt tokens). ``all_reduce_ms``:
    over (devices, numbers), times themselves; None where no collective was measured. ``moe``: by
    ``experts_key``, over (devices that share each expert, tokens).
    """

    sheet: DataSheet
    gemm: dict[str, Grid]
    decode: Grid
    prefill: Grid
    all_reduce_ms: Grid | None
    moe: dict[str, Grid]


@lru_cache(maxsize=16)
def measured_kernels(name: str) -> Kernels:
    """Read the kernels of a measured device.

    Raises:
        UserError: there are none of that name.
    """
    folder = files("vidur_ext.execution_time") / "measured"
    if not (folder / f"{name}.npz").is_file():
        known = sorted(file.name[:-4] for file in folder.iterdir() if file.name.endswith(".npz"))
        raise UserError(f"no kernels of {name!r} were measured; choose one of {', '.join(known)}")
    with as_file(folder / f"{name}.npz") as path, np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key].astype(np.float64) for key in stored.files}

    def grid(key: str, *axes: str) -> Grid:
        return Grid(tuple(arrays[f"{key}_{axis}"] for axis in axes), arrays[key])

    weights = [kind for kind in BYTES if f"gemm_{kind}" in arrays]
    return Kernels(
        sheet=DataSheet(
            tuple((kind, float(arrays[f"tflops_{kind}"])) for kind in weights),
            float(arrays["memory_gb_s"]),
        ),
        gemm={kind: grid(f"gemm_{kind}", "k", "n", "m") for kind in weights},
        decode=grid("decode", "group", "kv_heads", "batch", "kv"),
        prefill=grid("prefill", "q_heads", "chunk"),
        all_reduce_ms=grid("all_reduce", "devices", "numbers") if "all_reduce" in arrays else None,
        moe={
            key.removesuffix("_split"): grid(key.removesuffix("_split"), "split", "tokens")
            for key in arrays
            if key.startswith("moe_") and key.endswith("_split")
        },
    )
