"""Reading measured operator profiles (Vidur's CSV format) for the fit and its error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.roofline import ModelShape

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
