"""Make the tables of measured kernels that the predictor ships, and say how well they interpolate.

The measurements are AIConfigurator's (NVIDIA, Apache-2.0): its wheel is downloaded without
anything that it depends on, and only read. ``--write`` replaces the files in
``vidur_ext/execution_time/measured``; without it nothing is changed. The error of interpolation is
that at sizes which are left out of the grid: every second one of each dimension.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from aiconfigurator import SYSTEMS, add_wheel_option, wheel_at_hand
from harness import Figures, run_benchmark_with_options

from vidur_ext.execution_time import kernels
from vidur_ext.execution_time.kernels import (
    BYTES,
    DataSheet,
    ExpertShape,
    Floats,
    Grid,
    experts_key,
)

MEASURED = Path(__file__).parents[1] / "vidur_ext" / "execution_time" / "measured"


@dataclass(frozen=True)
class Source:
    """Where the measurements of a device lie in the wheel, and the data sheet they are judged by.

    ``gemm`` and ``collectives`` are versions of vLLM.
    """

    folder: str
    gemm: str
    collectives: str | None
    sheet: DataSheet


def _sheet(bf16: float, fp8: float | None, memory_gb_s: float) -> DataSheet:
    rates = (("bf16", bf16),) if fp8 is None else (("bf16", bf16), ("fp8", fp8))
    return DataSheet(rates, memory_gb_s)


SOURCES = {
    "a100": Source("a100_sxm", "0.14.0", "0.14.0", _sheet(312.0, None, 2039.0)),
    "h100": Source("h100_sxm", "0.24.0", "0.24.0", _sheet(989.4, 1978.9, 3350.0)),
    "h200": Source("h200_sxm", "0.24.0", "0.24.0", _sheet(989.4, 1978.9, 4800.0)),
    "b200": Source("b200_sxm", "0.24.0", "0.24.0", _sheet(2250.0, 4500.0, 7700.0)),
    "l40s": Source("l40s", "0.24.0", "0.22.0", _sheet(362.05, 733.0, 864.0)),
    "rtx_pro_6000": Source("rtx_pro_6000_server", "0.24.0", "0.24.0", _sheet(467.8, 935.6, 1792.0)),
}
"""Data sheets as AIConfigurator's ``systems/*.yaml`` state them, dense."""

_NAMES = {"bf16": "bfloat16", "fp8": "fp8"}
_M = (1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 384, 512, 768, 1024, 1280)
_M_LARGE = (1536, 1792, 2048, 2560, 3072, 3584, 4096, 8192, 16384, 32768)
_SMALLEST_SIDE = 64
_GROUPS = (1, 2, 4, 8)
_KV_HEADS = (1, 2, 4, 8)
_Q_HEADS = (1, 2, 4, 8, 16, 32, 64)
_SPLITS = (1, 2, 4, 8)
_EXPERTS = (ExpertShape(2048, 768, 8, 128), ExpertShape(4096, 14336, 2, 8))
"""Those of Qwen3-30B-A3B and Mixtral-8x7B."""
_TOKENS_OVER_EXPERTS = "power_law_1.01"
"""How tokens are spread; every device has this one."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--wheel``, ``--devices`` and ``--write``."""
    add_wheel_option(parser)
    parser.add_argument("--devices", default=",".join(SOURCES), help="names with commas between")
    parser.add_argument("--write", action="store_true", help=f"replace the files in {MEASURED}")


def measure(arguments: argparse.Namespace) -> Figures:
    """Make the tables; return their errors [%] at sizes that were left out."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            return _errors("made_up", _made_up(SOURCES["h100"].sheet))
        wheel = wheel_at_hand(arguments.wheel, Path(folder))
        for name in arguments.devices.split(","):
            tables = read_tables(wheel, SOURCES[name], Path(folder))
            figures.update(_errors(name, tables))
            if arguments.write:
                MEASURED.mkdir(exist_ok=True)
                np.savez_compressed(MEASURED / f"{name}.npz", **_as_stored(tables))
                figures[f"{name}_kilobytes"] = (MEASURED / f"{name}.npz").stat().st_size / 1e3
    return figures


def read_tables(wheel: Path, source: Source, folder: Path) -> dict[str, Any]:
    """Return the grids of a device, by their names in the file, from a wheel's tables."""
    sheet = source.sheet

    def table(kind: str, version: str, name: str) -> Any:
        return _table(wheel, folder, f"{SYSTEMS}/data/{source.folder}/{kind}/vllm/{version}/{name}")

    tables: dict[str, Any] = {"memory_gb_s": sheet.memory_gb_s}
    products = table("gemm", source.gemm, "gemm_perf.parquet")
    for weights, _ in sheet.tflops:
        tables[f"tflops_{weights}"] = sheet.rate(weights)
        rows = products[products["gemm_dtype"] == _NAMES[weights]]
        grid = _gemm_grid(rows, sheet, weights)
        _add(tables, f"gemm_{weights}", grid, ("k", "n", "m"))
    decode = _attention_rows(table("attention", source.gemm, "generation_attention_perf.parquet"))
    _add(tables, "decode", _decode_grid(decode, sheet), ("group", "kv_heads", "batch", "kv"))
    prefill = _attention_rows(table("attention", source.gemm, "context_attention_perf.parquet"))
    _add(tables, "prefill", _prefill_grid(prefill, sheet), ("q_heads", "chunk"))
    experts = table("moe", source.gemm, "moe_perf.parquet")
    for weights, _ in sheet.tflops:
        for shape in _EXPERTS:
            rows = _experts_rows(experts, weights, shape)
            if len(rows):
                grid = _experts_grid(rows, sheet, weights, shape)
                _add(tables, _experts_name(weights, shape), grid, ("split", "tokens"))
    if source.collectives is not None:
        rows = table("comm", source.collectives, "custom_allreduce_perf.parquet")
        rows = rows[rows["backend"] == "vllm_graph"]
        grid = _pivot(rows, ("num_gpus", "message_size"))
        _add(tables, "all_reduce", grid, ("devices", "numbers"))
    return tables


def _table(wheel: Path, folder: Path, member: str) -> Any:
    import pandas as pd  # with pyarrow, which nothing else here needs

    with zipfile.ZipFile(wheel) as archive:
        return pd.read_parquet(archive.extract(member, folder))


def _attention_rows(rows: Any) -> Any:
    rows = rows[(rows["head_dim"] == kernels.HEAD_DIM) & (rows["kv_cache_dtype"] == "bfloat16")]
    return rows[rows["window_size"] == 0] if "window_size" in rows else rows


def _pivot(rows: Any, axes: tuple[str, ...]) -> Grid:
    """Return median latencies [ms] over the grid of all sizes; NaN where there is none."""
    medians = rows.groupby(list(axes))["latency"].median()
    levels = [np.array(sorted(rows[axis].unique()), dtype=float) for axis in axes]
    values = np.full([len(level) for level in levels], np.nan)
    for place, latency in medians.items():
        at = tuple(int(np.searchsorted(level, x)) for level, x in zip(levels, place, strict=True))
        values[at] = latency
    return Grid(tuple(levels), values)


def _gemm_grid(rows: Any, sheet: DataSheet, weights: str) -> Grid:
    rows = rows[rows["m"].isin((*_M, *_M_LARGE))]
    rows = rows[(rows["n"] >= _SMALLEST_SIDE) & (rows["k"] >= _SMALLEST_SIDE)]
    grid = _pivot(rows, ("k", "n", "m"))
    k, n, m = np.meshgrid(*grid.axes, indexing="ij")
    return _ratios(grid, kernels.gemm_bound_ms(sheet, weights, m, n, k))


def _decode_grid(rows: Any, sheet: DataSheet) -> Grid:
    rows = rows.assign(
        group=rows["num_heads"] / rows["num_key_value_heads"],
        # The request's new token is among those that it attends to.
        kv=rows["step"] + 1,
    )
    rows = rows[rows["group"].isin(_GROUPS) & rows["num_key_value_heads"].isin(_KV_HEADS)]
    grid = _pivot(rows, ("group", "num_key_value_heads", "batch_size", "kv"))
    _, heads, batch, kv = np.meshgrid(*grid.axes, indexing="ij")
    return _ratios(grid, kernels.decode_bound_ms(sheet, heads, batch, kv))


def _prefill_grid(rows: Any, sheet: DataSheet) -> Grid:
    """One prompt. The query heads decide; of the KV heads, a quarter as many stand for all."""
    rows = rows[(rows["batch_size"] == 1) & rows["num_heads"].isin(_Q_HEADS)]
    usual = (rows["num_heads"] // 4).clip(1, max(_KV_HEADS))
    rows = rows[rows["num_key_value_heads"] == usual]
    grid = _pivot(rows, ("num_heads", "isl"))
    heads, chunk = np.meshgrid(*grid.axes, indexing="ij")
    return _ratios(grid, kernels.prefill_bound_ms(sheet, heads, chunk))


def _experts_name(weights: str, shape: ExpertShape) -> str:
    hidden = int(shape.hidden)
    return experts_key(weights, shape.embedding_dim, hidden, shape.per_token, shape.experts)


def _experts_rows(rows: Any, weights: str, shape: ExpertShape) -> Any:
    wanted = {
        "moe_dtype": _NAMES[weights],
        "hidden_size": shape.embedding_dim,
        "inter_size": shape.hidden,
        "topk": shape.per_token,
        "num_experts": shape.experts,
        "moe_ep_size": 1,
        "distribution": _TOKENS_OVER_EXPERTS,
    }
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows[rows["moe_tp_size"].isin(_SPLITS)]


def _experts_grid(rows: Any, sheet: DataSheet, weights: str, shape: ExpertShape) -> Grid:
    grid = _pivot(rows, ("moe_tp_size", "num_tokens"))
    bounds = [
        kernels.experts_bound_ms(
            sheet, weights, replace(shape, hidden=shape.hidden / split), grid.axes[1]
        )
        for split in grid.axes[0]
    ]
    return _ratios(grid, np.array(bounds))


def _ratios(times: Grid, bound: Floats) -> Grid:
    """Take the logarithm of times over bounds; a gap is as its neighbour of the next less size."""
    values = np.log(times.log_ratio / bound)
    for axis in reversed(range(values.ndim)):
        along = np.moveaxis(values, axis, 0)
        for before, after in itertools.pairwise(along):
            np.copyto(after, before, where=np.isnan(after))
    assert not np.isnan(values).any(), "nothing was measured at the smallest sizes"
    return Grid(times.axes, values)


def _add(tables: dict[str, Any], key: str, grid: Grid, axes: tuple[str, ...]) -> None:
    tables[key] = grid.log_ratio
    tables.update({f"{key}_{axis}": values for axis, values in zip(axes, grid.axes, strict=True)})


def _as_stored(tables: dict[str, Any]) -> dict[str, Any]:
    """Two bytes hold a logarithm to a thousandth; sizes and times keep four."""
    experts = (key.removesuffix("_split") for key in tables if key.endswith("_split"))
    ratios = {"decode", "prefill", *map(_gemm, BYTES), *experts}
    return {
        key: np.asarray(values, dtype=np.float16 if key in ratios else np.float32)
        for key, values in tables.items()
    }


def _gemm(weights: str) -> str:
    return f"gemm_{weights}"


def _made_up(sheet: DataSheet) -> dict[str, Any]:
    """Tables of a device that is half as fast as its data sheet everywhere: no file needed."""
    axes = tuple(np.exp2(np.arange(6.0, 15.0)) for _ in range(3))
    tables: dict[str, Any] = {}
    _add(tables, "gemm_bf16", Grid(axes, np.full((9, 9, 9), np.log(2.0))), ("k", "n", "m"))
    return tables


def _errors(name: str, tables: dict[str, Any]) -> Figures:
    """Return median and 90th percentile of |error| [%] at sizes left out of each grid."""
    axes = {
        **{f"gemm_{weights}": ("k", "n", "m") for weights in BYTES},
        "decode": ("group", "kv_heads", "batch", "kv"),
        "prefill": ("q_heads", "chunk"),
    }
    figures: Figures = {}
    for key, names in axes.items():
        if key in tables:
            grid = Grid(tuple(tables[f"{key}_{axis}"] for axis in names), tables[key])
            errors = 100.0 * np.abs(np.expm1(_left_out(grid)))
            figures[f"{name}_{key}_median_error_percent"] = float(np.median(errors))
            figures[f"{name}_{key}_p90_error_percent"] = float(np.percentile(errors, 90))
    return figures


def _left_out(grid: Grid) -> Floats:
    """Return predicted less true logarithms at every second inner size of each axis in turn."""
    errors = []
    for axis, sizes in enumerate(grid.axes):
        values, logs = np.moveaxis(grid.log_ratio, axis, -1), np.log(sizes)
        if len(sizes) < 5:
            continue
        kept, out = np.arange(0, len(sizes), 2), np.arange(1, len(sizes) - 1, 2)
        rows = values.reshape(-1, len(sizes))
        predicted = np.array([np.interp(logs[out], logs[kept], row[kept]) for row in rows])
        errors.append((predicted - rows[:, out]).ravel())
    return np.concatenate(errors)


if __name__ == "__main__":
    run_benchmark_with_options("tables of measured kernels", add_options, measure)
