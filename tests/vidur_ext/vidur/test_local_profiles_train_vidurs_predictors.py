"""Vidur's own predictors from a folder of made-up profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from vidur.config import CacheConfig, ReplicaConfig
from vidur.entities import Batch
from vidur.types import ReplicaId

from ppo_scheduler.errors import UserError
from vidur_ext.vidur.local_profile_predictor import (
    LocalLinearRegressionExecutionTimePredictor,
    LocalLinearRegressionExecutionTimePredictorConfig,
    LocalRandomForrestExecutionTimePredictor,
    LocalRandomForrestExecutionTimePredictorConfig,
    load_predictions,
    store_predictions,
)

MLP_OPERATORS = {
    "attn_pre_proj": 5.0,
    "attn_post_proj": 2.0,
    "mlp_up_proj": 9.0,
    "mlp_down_proj": 4.0,
    "mlp_act": 1.0,
    "attn_rope": 0.5,
    "input_layernorm": 0.2,
    "post_attention_layernorm": 0.2,
    "add": 0.1,
}
SHAPE = {"n_kv_head": 8, "n_embd": 4096, "num_tensor_parallel_workers": 1}
SMALL: dict[str, Any] = {
    "k_fold_cv_splits": 2,
    "num_training_job_threads": 1,
    "kv_cache_prediction_granularity": 128,
    "prediction_max_prefill_chunk_size": 64,
    "prediction_max_batch_size": 4,
    "prediction_max_tokens_per_request": 512,
}
LINEAR: dict[str, Any] = {
    "polynomial_degree": [1],
    "polynomial_include_bias": [False],
    "polynomial_interaction_only": [False],
    "fit_intercept": [True],
}
FOREST: dict[str, Any] = {"num_estimators": [2], "max_depth": [8], "min_samples_split": [2]}


def write_profiles(folder: Path, scale: float = 1.0, suffix: str = ".csv") -> Path:
    """Write profiles whose times are linear, so that a linear regression is exact."""
    folder.mkdir(exist_ok=True)
    tokens = np.arange(8, 513, 24)
    mlp = pd.DataFrame({"num_tokens": tokens, "n_head": 32, "n_expanded_embd": 14336, **SHAPE})
    mlp["use_gated_mlp"] = True
    mlp["vocab_size"] = 128256
    for operator, slope in MLP_OPERATORS.items():
        mlp[f"time_stats.{operator}.median"] = scale * (0.01 + slope * tokens * 1e-4)
    mlp.to_csv(folder / f"mlp{suffix}", index=False)

    grid = [(b, 0, kv) for b in (1, 2, 4) for kv in (128, 256, 512)]
    grid += [(1, chunk, kv) for chunk in (32, 64) for kv in (0, 128, 256, 512)]
    attention = pd.DataFrame(grid, columns=["batch_size", "prefill_chunk_size", "kv_cache_size"])
    attention = attention.assign(n_q_head=32, block_size=16, **SHAPE)
    is_prefill = attention["prefill_chunk_size"] > 0
    kv = attention["kv_cache_size"]
    prefill = 0.01 + 1e-4 * attention["prefill_chunk_size"] + 1e-5 * kv
    decode = 0.01 + 1e-3 * attention["batch_size"] + 1e-5 * kv
    attention["time_stats.attn_prefill.median"] = (scale * prefill).where(is_prefill, 0.0)
    attention["time_stats.attn_decode.median"] = (scale * decode).where(~is_prefill, 0.0)
    attention.to_csv(folder / f"attention{suffix}", index=False)
    return folder


def build(kind: str, profiles: Path | None, cache: Path, **replica: Any) -> Any:
    config_class, predictor_class, fields = {
        "linear": (
            LocalLinearRegressionExecutionTimePredictorConfig,
            LocalLinearRegressionExecutionTimePredictor,
            LINEAR,
        ),
        "forest": (
            LocalRandomForrestExecutionTimePredictorConfig,
            LocalRandomForrestExecutionTimePredictor,
            FOREST,
        ),
    }[kind]
    folder = None if profiles is None else str(profiles)
    config = config_class(profile_dir=folder, cache_dir=str(cache), **SMALL, **fields)
    parallelism = {"tensor_parallel_size": 1, "num_pipeline_stages": 1, **replica}
    replica_config = ReplicaConfig(device="a100", network_device="a100_dgx", **parallelism)
    return predictor_class(config, replica_config, CacheConfig())


def execution_time(predictor: Any, q_tokens: list[int], kv_tokens: list[int]) -> Any:
    batch = Batch(ReplicaId(0), [None] * len(q_tokens), q_tokens, kv_tokens)
    return predictor.get_execution_time(batch, 0)


@pytest.mark.parametrize("suffix", [".csv", ".csv.xz"])
def test_a_linear_profile_is_learned_exactly(tmp_path: Path, suffix: str) -> None:
    profiles = write_profiles(tmp_path / "profiles", suffix=suffix)
    times = execution_time(build("linear", profiles, tmp_path / "cache"), [1, 1, 62], [256] * 3)
    assert times.mlp_layer_up_proj_execution_time == pytest.approx(0.01 + 9.0 * 64e-4)
    assert times.attention_prefill_execution_time == pytest.approx(0.01 + 64e-4 + 256e-5)
    decode = (0.01 + 2e-3 + 256e-5) * 1.1  # Vidur's overhead of batched decoding
    assert times.attention_decode_execution_time == pytest.approx(decode)


def test_a_forest_stays_within_the_profile(tmp_path: Path) -> None:
    predictor = build("forest", write_profiles(tmp_path / "profiles"), tmp_path / "cache")
    up = execution_time(predictor, [64], [64]).mlp_layer_up_proj_execution_time
    assert 0.01 + 9.0 * 8e-4 <= up <= 0.01 + 9.0 * 512e-4


def test_nothing_is_pickled_and_the_cached_tables_are_used(tmp_path: Path) -> None:
    profiles, cache = write_profiles(tmp_path / "profiles"), tmp_path / "cache"
    first = build("linear", profiles, cache)
    (stored,) = [path for path in cache.rglob("*") if path.is_file()]
    assert stored.suffix == ".npz"
    tables = load_predictions(stored)
    assert tables == first._predictions
    tables["add"] = {key: value + 7.0 for key, value in tables["add"].items()}
    store_predictions(stored, tables)
    again = build("linear", profiles, cache)
    difference = (
        execution_time(again, [64], [64]).add_time - execution_time(first, [64], [64]).add_time
    )
    assert difference == pytest.approx(7.0)


def test_changed_profiles_are_learned_anew(tmp_path: Path) -> None:
    folder, cache = tmp_path / "profiles", tmp_path / "cache"
    before = execution_time(build("linear", write_profiles(folder), cache), [64], [64])
    after = execution_time(build("linear", write_profiles(folder, scale=3.0), cache), [64], [64])
    assert after.total_time == pytest.approx(3.0 * before.total_time)


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs profile_dir"):
        build("linear", None, tmp_path)
    folder = write_profiles(tmp_path / "profiles")
    (folder / "attention.csv").unlink()
    with pytest.raises(UserError, match=r"attention\.csv is missing \(or attention\.csv\.xz\)"):
        build("linear", folder, tmp_path)


@pytest.mark.parametrize(
    ("replica", "missing"),
    [({"tensor_parallel_size": 2}, "2"), ({"num_pipeline_stages": 2}, r"send_recv\.csv")],
)
def test_parallel_replicas_need_their_profiles(
    tmp_path: Path, replica: dict[str, int], missing: str
) -> None:
    folder = write_profiles(tmp_path / "profiles")
    with pytest.raises(UserError, match=missing):
        build("linear", folder, tmp_path, **replica)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = write_profiles(tmp_path / "profiles")
    frame = pd.read_csv(folder / "mlp.csv").drop(columns="time_stats.mlp_act.median")
    frame.to_csv(folder / "mlp.csv", index=False)
    with pytest.raises(UserError, match=r"mlp\.csv lacks the column 'time_stats\.mlp_act\.median'"):
        build("linear", folder, tmp_path)


def test_profiles_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = write_profiles(tmp_path / "profiles")
    with pytest.raises(UserError, match=r"mlp\.csv has no row.*wanted n_kv_head = 32"):
        build("linear", folder, tmp_path, model_name="meta-llama/Llama-2-7b-hf")


def test_attention_without_decode_rows_is_refused(tmp_path: Path) -> None:
    folder = write_profiles(tmp_path / "profiles")
    frame = pd.read_csv(folder / "attention.csv")
    frame[frame["prefill_chunk_size"] > 0].to_csv(folder / "attention.csv", index=False)
    with pytest.raises(UserError, match="no decode row"):
        build("linear", folder, tmp_path)


def test_a_batch_beyond_the_tables_names_the_flag(tmp_path: Path) -> None:
    predictor = build("linear", write_profiles(tmp_path / "profiles"), tmp_path / "cache")
    flag = "--local_linear_regression_execution_time_predictor_config_prediction_max_batch_size"
    with pytest.raises(UserError, match=f"5 decoding requests, .* end at 4: raise {flag}"):
        execution_time(predictor, [1] * 5, [128] * 5)


@pytest.mark.slow
def test_a_resume_names_profiles_whose_content_changed(make_config, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Vidur keeps what it has learned in the working folder
    folder = write_profiles(tmp_path / "profiles")
    groups: dict[str, dict[str, object]] = {
        "simulation": {
            "engine": "vidur",
            "predictor": "local_linear_regression",
            "profile_dir": str(folder),
        },
        "cluster": {"num_replicas": 2, "batch_size_cap": 4, "chunk_size": 64},
        "workload": {"max_tokens": 512},
        "warmstart": {"enabled": False},
        "evaluation": {"enabled": False},
        "checkpointing": {"validation_freq": None},
    }
    train(make_config(**groups, training={"total_requests": 40, "episode_requests": 40}))
    write_profiles(folder, scale=2.0)
    more = make_config(**groups, training={"total_requests": 80, "episode_requests": 40})
    resumed = train(more, load_checkpoint="latest")
    assert "WARNING changed since the checkpoint: inputs.profiles: " in resumed.log
    assert "a file has another content under its name" in resumed.log
