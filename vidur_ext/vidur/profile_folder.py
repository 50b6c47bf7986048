"""A local folder of Vidur's profile CSVs: which files it must hold, and with which columns."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from ppo_scheduler.errors import UserError

_MLP_OPERATORS = (
    "attn_pre_proj",
    "attn_post_proj",
    "mlp_up_proj",
    "mlp_down_proj",
    "mlp_act",
    "attn_rope",
)
_NETWORK_COLUMNS = ("num_workers", "devices_per_node", "collective", "size")
_COLUMNS = {
    "mlp": (
        "n_head",
        "n_kv_head",
        "n_embd",
        "n_expanded_embd",
        "use_gated_mlp",
        "vocab_size",
        "num_tensor_parallel_workers",
        "num_tokens",
        *(f"time_stats.{operator}.median" for operator in _MLP_OPERATORS),
    ),
    "attention": (
        "n_embd",
        "n_q_head",
        "n_kv_head",
        "block_size",
        "num_tensor_parallel_workers",
        "batch_size",
        "prefill_chunk_size",
        "kv_cache_size",
        "time_stats.attn_prefill.median",
        "time_stats.attn_decode.median",
    ),
    "all_reduce": (*_NETWORK_COLUMNS, "time_stats.all_reduce.median"),
    "send_recv": (*_NETWORK_COLUMNS, "time_stats.send_recv.median"),
}


class ProfileFolder:
    """Profiles for one replica configuration, checked when constructed.

    Args:
        folder: holds ``mlp.csv`` and ``attention.csv``; ``all_reduce.csv`` too with tensor
            parallelism, ``send_recv.csv`` with pipeline stages. Each may be ``.csv.xz``.
        replica_config: Vidur's.
        block_size: tokens per KV block.

    Raises:
        UserError: a file, a column or the rows of this configuration are missing.
    """

    def __init__(self, folder: str | None, replica_config: Any, block_size: int) -> None:
        if not folder:
            raise UserError(
                "a local execution-time predictor needs profile_dir: a folder with "
                "mlp.csv and attention.csv from Vidur's profiler"
            )
        self._folder = Path(folder)
        degree = replica_config.tensor_parallel_size
        model = replica_config.model_config
        shape = {"n_embd": model.embedding_dim, "n_kv_head": model.num_kv_heads}
        self._paths = {
            "mlp": self._check(
                "mlp",
                {
                    **shape,
                    "n_head": model.num_q_heads,
                    "n_expanded_embd": model.mlp_hidden_dim,
                    "use_gated_mlp": model.use_gated_mlp,
                    "vocab_size": model.vocab_size,
                    "num_tensor_parallel_workers": degree,
                },
            ),
            "attention": self._check(
                "attention",
                {
                    **shape,
                    "n_q_head": model.num_q_heads,
                    "block_size": block_size,
                    "num_tensor_parallel_workers": degree,
                },
            ),
        }
        if degree > 1:
            wanted = {"collective": "all_reduce", "num_workers": degree, "devices_per_node": degree}
            self._paths["all_reduce"] = self._check("all_reduce", wanted)
        if replica_config.num_pipeline_stages > 1:
            self._paths["send_recv"] = self._check("send_recv", {"collective": "send_recv"})

    def input_files(self) -> tuple[str, str, str, str]:
        """Return the four paths in Vidur's order; one that is not needed is empty."""
        names = ("mlp", "attention", "all_reduce", "send_recv")
        mlp, attention, all_reduce, send_recv = (str(self._paths.get(name, "")) for name in names)
        return mlp, attention, all_reduce, send_recv

    def digest(self) -> str:
        """Return a hash of the contents of all files."""
        state = hashlib.sha256()
        for name, path in sorted(self._paths.items()):
            state.update(name.encode())
            state.update(path.read_bytes())
        return state.hexdigest()

    def _check(self, name: str, wanted: dict[str, Any]) -> Path:
        candidates = [self._folder / f"{name}.csv", self._folder / f"{name}.csv.xz"]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise UserError(
                f"{candidates[0]} is missing (or {candidates[1].name}): profile it with Vidur's "
                "profiler, or set predictor to analytic"
            )
        frame = pd.read_csv(path)
        for column in _COLUMNS[name]:
            if column not in frame.columns:
                raise UserError(f"{path} lacks the column {column!r}: use Vidur's profile format")
        rows = frame
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
            if rows.empty:
                present = sorted(str(item) for item in frame[column].unique())
                raise UserError(
                    f"{path} has no row for this replica: wanted {column} = {value} (with "
                    f"{wanted}), the file has {', '.join(present[:8])}"
                )
        if name == "attention":
            self._check_both_kinds(path, rows)
        return path

    @staticmethod
    def _check_both_kinds(path: Path, rows: pd.DataFrame) -> None:
        prefill = rows["prefill_chunk_size"] > 0
        for kind, present in (("prefill", prefill.any()), ("decode", (~prefill).any())):
            if not present:
                raise UserError(f"{path} has no {kind} row for this replica: profile both kinds")
