"""Operator profiles in Vidur's CSV format: measured ones for the fit, and made-up ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.constants import DeviceConstants
from vidur_ext.execution_time.roofline import ModelShape, RooflineModel

GEMM_OPERATORS = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
STREAM_OPERATORS = {
    "input_layernorm": "norm",
    "post_attention_layernorm": "norm",
    "add": "add",
    "mlp_act": "activation",
    "attn_rope": "rope",
    "emb": "embedding",
}
_FILE_NAME = re.compile(r"(?P<device>[a-z0-9]+)_(?P<model>.+?)_(?P<kind>mlp|attention)(_sample)?")
_SHAPE_COLUMNS = {
    "num_q_heads": "n_head",
    "num_kv_heads": "n_kv_head",
    "embedding_dim": "n_embd",
    "mlp_hidden_dim": "n_expanded_embd",
    "vocab_size": "vocab_size",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """One model measured on one device: operator times per tensor-parallel degree."""

    device: str
    model_name: str
    shape: ModelShape
    mlp: pd.DataFrame
    attention: pd.DataFrame | None

    def degrees(self) -> list[int]:
        """Return the tensor-parallel degrees that were measured."""
        return sorted(int(tp) for tp in self.mlp["num_tensor_parallel_workers"].unique())

    def operator(self, name: str, degree: int) -> tuple[Floats, Floats]:
        """Return token counts and median times [ms] of an operator."""
        rows = self.mlp[self.mlp["num_tensor_parallel_workers"] == degree]
        times = column(rows, f"time_stats.{name}.median", self.model_name)
        return column(rows, "num_tokens", self.model_name), times

    def attention_rows(self, kind: str, degree: int) -> tuple[Floats, Floats, Floats]:
        """Return (batch or chunk, KV tokens, median ms) of the kind ``decode`` or ``prefill``."""
        assert self.attention is not None
        rows = self.attention
        is_kind = (rows["prefill_chunk_size"] > 0) == (kind == "prefill")
        rows = rows[is_kind & (rows["num_tensor_parallel_workers"] == degree)]
        first = "prefill_chunk_size" if kind == "prefill" else "batch_size"
        return (
            column(rows, first, self.model_name),
            column(rows, "kv_cache_size", self.model_name),
            column(rows, f"time_stats.attn_{kind}.median", self.model_name),
        )

    def cache_save_rows(self) -> tuple[Floats, Floats]:
        """Return batch sizes and times [ms] of the KV cache write while decoding, one device.

        The write in prefill was measured with an old kernel a hundred times slower; it says
        nothing about today's.
        """
        assert self.attention is not None
        rows = self.attention
        rows = rows[(rows["prefill_chunk_size"] == 0) & (rows["num_tensor_parallel_workers"] == 1)]
        times = column(rows, "time_stats.attn_kv_cache_save.median", self.model_name)
        return column(rows, "batch_size", self.model_name), times


def column(frame: pd.DataFrame, name: str, where: str) -> Floats:
    """Return a column as float64; a missing one is the user's error."""
    if name not in frame.columns:
        raise UserError(f"the profile of {where} lacks the column {name!r}; use Vidur's profiler")
    values: Floats = frame[name].to_numpy(dtype=np.float64)
    return values


def read_profiles(folder: Path) -> list[Profile]:
    """Read ``<device>_<model>_mlp.csv`` and, where there is one, its ``…_attention….csv``.

    Raises:
        UserError: the folder holds no such file, or one lacks a column.
    """
    files: dict[tuple[str, str, str], Path] = {}
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.csv.xz")]):
        match = _FILE_NAME.fullmatch(path.name.split(".csv")[0])
        if match:
            files[match["device"], match["model"], match["kind"]] = path
    profiles = [
        _read(device, model, path, files.get((device, model, "attention")))
        for (device, model, kind), path in files.items()
        if kind == "mlp"
    ]
    if not profiles:
        raise UserError(
            f"{folder} holds no profile: expected files named <device>_<model>_mlp.csv and "
            "<device>_<model>_attention.csv, as Vidur's profiler writes their contents"
        )
    return profiles


def _read(device: str, model: str, mlp_path: Path, attention_path: Path | None) -> Profile:
    mlp = pd.read_csv(mlp_path).drop_duplicates()
    dimensions: dict[str, Any] = {
        ours: int(column(mlp, theirs, str(mlp_path))[0]) for ours, theirs in _SHAPE_COLUMNS.items()
    }
    # One layer is enough: profiles hold the times of one.
    dimensions["gated_mlp"] = bool(column(mlp, "use_gated_mlp", str(mlp_path))[0])
    shape = ModelShape(num_layers=1, **dimensions)
    attention = None
    if attention_path is not None:
        attention = pd.read_csv(attention_path).rename(columns=_full_name)
    return Profile(device, model, shape, mlp, attention)


def _full_name(name: str) -> str:
    """Map ``attn_decode_median_ms`` of a condensed file to Vidur's column name."""
    return re.sub(r"^(attn_\w+)_median_ms$", r"time_stats.\1.median", name)


_MADE_UP = ModelShape(1, 32, 8, 4096, 14336, 128256)


def write_profiles(folder: Path, device: DeviceConstants) -> Path:
    """Write the profiles that a device of these constants would give; return the folder."""
    tokens = np.array([1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096], dtype=np.float64)
    frames: list[pd.DataFrame] = []
    attention: list[tuple[Any, ...]] = []
    for degree in (1, 4):
        model = RooflineModel(_MADE_UP, device, degree, 1)
        frame = pd.DataFrame({"num_tokens": tokens, "num_tensor_parallel_workers": degree})
        for name in (*GEMM_OPERATORS, *STREAM_OPERATORS):
            frame[f"time_stats.{name}.median"] = model.operator_ms(name, tokens)
        frames.append(frame)
        for kv in (0.0, 256.0, 1024.0, 4096.0, 16384.0):
            for batch in (1.0, 8.0, 32.0, 40.0, 128.0):
                save = model.operator_ms("attn_kv_cache_save", batch)
                attention.append((degree, batch, 0, kv, 0.0, model.attn_decode(batch, kv), save))
            for chunk in (64.0, 256.0, 512.0, 2048.0):
                time = model.attn_prefill(kv, chunk)
                attention.append((degree, 1.0, chunk, kv, time, 0.0, 0.0))
    shape = {"n_head": 32, "n_kv_head": 8, "n_embd": 4096, "n_expanded_embd": 14336}
    mlp = pd.concat(frames).assign(vocab_size=128256, use_gated_mlp=True, **shape)
    mlp.to_csv(folder / "a100_made-up_model_mlp.csv", index=False)
    columns = ["num_tensor_parallel_workers", "batch_size", "prefill_chunk_size", "kv_cache_size"]
    columns += [f"time_stats.attn_{kind}.median" for kind in ("prefill", "decode", "kv_cache_save")]
    pd.DataFrame(attention, columns=columns).to_csv(
        folder / "a100_made-up_model_attention.csv", index=False
    )
    return folder
