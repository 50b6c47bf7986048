"""The C++ tables, the Python path and the closed form give one time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vidur.config import CacheConfig, ReplicaConfig
from vidur.entities import Batch, KVParallelBatch, Request
from vidur.types import ReplicaId

from vidur_ext.vidur.analytic_predictor import (
    AnalyticExecutionTimePredictor,
    AnalyticExecutionTimePredictorConfig,
)

FIELDS = [
    "num_layers",
    "add_time",
    "attention_decode_execution_time",
    "attention_kv_cache_save_execution_time",
    "attention_layer_post_proj_execution_time",
    "attention_layer_pre_proj_execution_time",
    "attention_prefill_execution_time",
    "attention_rope_execution_time",
    "attn_norm_time",
    "mlp_layer_act_execution_time",
    "mlp_layer_down_proj_execution_time",
    "mlp_layer_up_proj_execution_time",
    "mlp_norm_time",
    "pipeline_parallel_communication_time",
    "tensor_parallel_communication_time",
    "total_time",
]
REPLICAS = {
    "gqa": {"model_name": "meta-llama/Llama-3-8B"},
    "mha_tp2_pp2": {
        "model_name": "meta-llama/Llama-2-7b-hf",
        "tensor_parallel_size": 2,
        "num_pipeline_stages": 2,
    },
    "no_post_norm": {"model_name": "microsoft/phi-2"},
}


def predictor(native: bool, replica: str = "gqa", **fields: Any) -> AnalyticExecutionTimePredictor:
    parallelism = {"tensor_parallel_size": 1, "num_pipeline_stages": 1}
    replica_config = ReplicaConfig(
        device="a100", network_device="a100_dgx", **{**parallelism, **REPLICAS[replica]}
    )
    config = AnalyticExecutionTimePredictorConfig(
        use_native_execution_time_predictor=native, **fields
    )
    return AnalyticExecutionTimePredictor(config, replica_config, CacheConfig())


def batch_of(q_tokens: list[int], kv_tokens: list[int]) -> Batch:
    return Batch(ReplicaId(0), [None] * len(q_tokens), q_tokens, kv_tokens)


requests = st.tuples(st.one_of(st.just(1), st.integers(1, 1000)), st.integers(0, 15_000)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)
batches = st.tuples(
    st.lists(st.integers(1, 16_000).map(lambda kv: (1, kv)), max_size=120),
    st.lists(requests, min_size=1, max_size=4),
).map(lambda parts: parts[0] + parts[1])


@pytest.mark.parametrize("replica", REPLICAS)
@settings(max_examples=50, deadline=None)
@given(batch=batches)
def test_both_paths_give_every_field_alike(replica: str, batch: list[tuple[int, int]]) -> None:
    q_tokens, kv_tokens = (list(column) for column in zip(*batch, strict=True))
    native, python = predictor(True, replica), predictor(False, replica)
    for stage in range(native.roofline.num_pipeline_stages):
        ours = python.get_execution_time(batch_of(q_tokens, kv_tokens), stage)
        theirs = native.get_execution_time(batch_of(q_tokens, kv_tokens), stage)
        for name in FIELDS:
            assert getattr(theirs, name) == pytest.approx(getattr(ours, name), rel=1e-12), name


@pytest.mark.parametrize("replica", REPLICAS)
@pytest.mark.parametrize(
    ("decodes", "kv", "chunks"),
    [(8, 1024, []), (0, 0, [(0, 512)]), (64, 2048, [(512, 448)]), (120, 64, [(0, 64), (1024, 64)])],
)
def test_the_closed_form_equals_the_tables_at_their_keys(
    replica: str, decodes: int, kv: int, chunks: list[tuple[int, int]]
) -> None:
    tables = predictor(True, replica)
    batch = batch_of(
        [1] * decodes + [chunk for _, chunk in chunks],
        [kv] * decodes + [cached + chunk for cached, chunk in chunks],
    )
    total = sum(
        tables.get_execution_time(batch, stage).total_time
        for stage in range(tables.roofline.num_pipeline_stages)
    )
    closed_form = tables.roofline.iteration_time_s(decodes, float(kv), chunks)
    assert total == pytest.approx(closed_form, rel=1e-12)


def test_host_time_of_collectives_is_the_same_on_both_paths_and_counts() -> None:
    overheads = {"nccl_cpu_launch_overhead_ms": 0.5, "nccl_cpu_skew_overhead_per_device_ms": 0.25}
    batch = batch_of([8], [8])
    plain = predictor(True, "mha_tp2_pp2").get_execution_time(batch, 1)
    for native in (True, False):
        slow = predictor(native, "mha_tp2_pp2", **overheads).get_execution_time(batch, 1)
        extra = slow.tensor_parallel_communication_time - plain.tensor_parallel_communication_time
        assert extra == pytest.approx(0.5 + 0.25 * 2**1.25)


@pytest.mark.parametrize("native", [True, False])
def test_a_mnemosyne_batch_counts_its_new_tokens_as_cached_too(native: bool) -> None:
    inner = Batch(
        ReplicaId(0),
        [Request(0.0, 1023, 8), Request(0.0, 512, 8)],
        [1, 128],
        [1023, 384],
    )
    wrapped = KVParallelBatch(ReplicaId(0), {0: inner})
    plain = batch_of([1, 128], [1024, 512])
    times = predictor(native)
    expected = times.get_execution_time(plain, 0).total_time
    assert times.get_execution_time(wrapped, 0).total_time == expected


@pytest.mark.parametrize("native", [True, False])
def test_an_orca_batch_without_the_cache_of_new_requests_is_completed(native: bool) -> None:
    times = predictor(native)
    expected = times.get_execution_time(batch_of([1, 256, 64], [100, 256, 64]), 0).total_time
    assert times.get_execution_time(batch_of([1, 256, 64], [100]), 0).total_time == expected
