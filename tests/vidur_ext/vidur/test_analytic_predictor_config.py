"""What the predictor's flags do, what it shares, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vidur.config import BaseExecutionTimePredictorConfig, CacheConfig
from vidur.entities import Batch
from vidur.execution_time_predictor import ExecutionTimePredictorRegistry
from vidur.types import ExecutionTimePredictorType, ReplicaId

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import device_named
from vidur_ext.vidur.analytic_predictor import (
    AnalyticExecutionTimePredictor,
    AnalyticExecutionTimePredictorConfig,
)
from vidur_ext.vidur.cluster import ReplicaConfig
from vidur_ext.vidur.plugin import register
from vidur_ext.vidur.types import PredictorType


def replica(**fields: Any) -> ReplicaConfig:
    values = {
        "device": "a100",
        "network_device": "a100_dgx",
        "tensor_parallel_size": 1,
        "num_pipeline_stages": 1,
        **fields,
    }
    return ReplicaConfig(**values)


def predictor(replica_config: ReplicaConfig | None = None, **fields: Any) -> Any:
    return AnalyticExecutionTimePredictor(
        AnalyticExecutionTimePredictorConfig(**fields), replica_config or replica(), CacheConfig()
    )


def time_of(predictor: Any, q_tokens: list[int], kv_tokens: list[int]) -> float:
    batch = Batch(ReplicaId(0), [None] * len(q_tokens), q_tokens, kv_tokens)
    return predictor.get_execution_time(batch, 0).total_time


def test_registering_twice_makes_all_predictors_constructible() -> None:
    register()
    register()
    for key in (*PredictorType, *ExecutionTimePredictorType):
        if key is not ExecutionTimePredictorType.DUMMY:
            implementation = ExecutionTimePredictorRegistry.get_class(key)
            assert not implementation.__abstractmethods__, key


@pytest.mark.parametrize("key", PredictorType)
def test_vidur_finds_the_config_of_each_type(key: PredictorType) -> None:
    config = BaseExecutionTimePredictorConfig.create_from_type(key)
    assert type(config).__name__.lower().startswith(str(key).replace("_", ""))


def test_the_registry_builds_it_as_the_global_scheduler_asks() -> None:
    register()
    config = AnalyticExecutionTimePredictorConfig()
    built = ExecutionTimePredictorRegistry.get(
        config.get_type(),
        predictor_config=config,
        replica_config=replica(),
        cache_config=CacheConfig(),
    )
    assert time_of(built, [1], [512]) > 0.0


def test_predictors_of_one_configuration_share_tables() -> None:
    first, second, other = predictor(), predictor(), predictor(nccl_cpu_launch_overhead_ms=2.0)
    assert first.tables is second.tables
    assert first._native_execution_time_predictor is second._native_execution_time_predictor
    assert other.tables is not first.tables


def prompt_times(folder: Path, stages: int, **changed: float) -> float:
    """Return the seconds of a prompt of 64 tokens, the batch cap 32, with a changed A100."""
    path = str(folder / f"{changed}.json")
    values = device_named("a100").model_dump() | changed
    Path(path).write_text(json.dumps(values), encoding="utf-8")
    times = predictor(
        replica(device=path, num_pipeline_stages=stages), prediction_max_batch_size=32
    )
    batch = Batch(ReplicaId(0), [None], [64], [64])
    return sum(times.get_execution_time(batch, stage).total_time for stage in range(stages))


@pytest.mark.parametrize("stages", [1, 2])
def test_iteration_overhead_is_paid_once_per_iteration(tmp_path: Path, stages: int) -> None:
    without, with_it = (
        prompt_times(tmp_path, stages, iteration_overhead_ms=overhead) for overhead in (0.0, 3.0)
    )
    assert with_it - without == pytest.approx(3e-3)


def test_a_prompt_that_no_graph_covers_takes_as_long_as_its_launch(tmp_path: Path) -> None:
    assert prompt_times(tmp_path, 1, eager_iteration_ms=40.0) == pytest.approx(40e-3, rel=1e-3)


def test_a_coarser_granularity_rounds_the_context_up() -> None:
    fine, coarse = (predictor(kv_cache_prediction_granularity=step) for step in (16, 1024))
    assert time_of(fine, [1] * 64, [1040] * 64) < time_of(coarse, [1] * 64, [1040] * 64)
    assert time_of(fine, [1] * 64, [2048] * 64) == time_of(coarse, [1] * 64, [2048] * 64)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("q_tokens", "kv_tokens", "message"),
    [
        ([200], [200], "200 tokens, .* end at 136: .*config_prediction_max_prefill_chunk_size"),
        ([130], [130], "130 tokens of one prompt, .* end at 128: .*max_prefill_chunk_size"),
        ([1] * 9, [1] * 9, "9 decoding requests, .* end at 8: .*config_prediction_max_batch_size"),
        ([1], [1100], "1100 KV tokens of one request, .* end at 1024: .*max_tokens_per_request"),
        ([32], [1100], "1100 KV tokens of one request, .* end at 1024: .*max_tokens_per_request"),
    ],
)
def test_a_batch_beyond_the_tables_names_the_flag_to_raise(
    native: bool, q_tokens: list[int], kv_tokens: list[int], message: str
) -> None:
    times = predictor(
        use_native_execution_time_predictor=native,
        prediction_max_prefill_chunk_size=128,
        prediction_max_batch_size=8,
        prediction_max_tokens_per_request=1000,
    )
    with pytest.raises(UserError, match=message):
        time_of(times, q_tokens, kv_tokens)


@pytest.mark.parametrize("native", [True, False])
def test_the_largest_batch_within_the_limits_is_covered(native: bool) -> None:
    times = predictor(
        use_native_execution_time_predictor=native,
        prediction_max_prefill_chunk_size=100,
        prediction_max_batch_size=7,
        prediction_max_tokens_per_request=1000,
    )
    assert time_of(times, [1] * 7 + [100], [1000] * 8) > 0.0


def test_what_the_roofline_does_not_model_is_refused() -> None:
    with pytest.raises(UserError, match="KV parallelism"):
        predictor(replica(kv_parallel_size=2))
    with pytest.raises(UserError, match="phi-2 cannot be split"):
        predictor(replica(model_name="microsoft/phi-2", tensor_parallel_size=2))
    with pytest.raises(UserError, match="attention_decode_batching_overhead_fraction must be 0"):
        predictor(attention_decode_batching_overhead_fraction=0.1)
    with pytest.raises(UserError, match="kv_cache_prediction_granularity is 0"):
        predictor(kv_cache_prediction_granularity=0)
