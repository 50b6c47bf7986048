"""Whole Vidur simulations with the analytic predictor, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vidur.config import (
    CacheConfig,
    ClusterConfig,
    FixedRequestLengthGeneratorConfig,
    MetricsConfig,
    MnemosyneFCFSFixedChunkSchedulerConfig,
    PoissonRequestIntervalGeneratorConfig,
    ReplicaConfig,
    SarathiSchedulerConfig,
    SimulationConfig,
    SyntheticRequestGeneratorConfig,
    UniformRequestLengthGeneratorConfig,
    VllmSchedulerConfig,
)
from vidur.entities import Batch, Replica, Request
from vidur.simulator import Simulator

from vidur_ext.vidur.analytic_predictor import AnalyticExecutionTimePredictorConfig
from vidur_ext.vidur.plugin import register
from vidur_ext.vidur.vllm_v1_replica import VllmV1SchedulerConfig

SCHEDULERS = {
    "sarathi": lambda: SarathiSchedulerConfig(batch_size_cap=16, chunk_size=256),
    "vllm": lambda: VllmSchedulerConfig(batch_size_cap=16, max_tokens_in_batch=1024),
    "vllm_v1": lambda: VllmV1SchedulerConfig(batch_size_cap=16, chunk_size=256),
    "mnemosyne": lambda: MnemosyneFCFSFixedChunkSchedulerConfig(batch_size_cap=16, chunk_size=256),
}


def finished_requests(
    tmp_path: Path, scheduler: str, lengths: Any, qps: float, native: bool = True, **replica: Any
) -> list[Any]:
    register()
    for entity in (Replica, Request, Batch):
        entity._id = -1  # Vidur routes by ids that it counts over all simulations of a process
    parallelism = {"tensor_parallel_size": 1, "num_pipeline_stages": 1, **replica}
    config = SimulationConfig(
        log_level="warning",
        cluster_config=ClusterConfig(
            num_replicas=2,
            replica_config=ReplicaConfig(device="a100", network_device="a100_dgx", **parallelism),
            cache_config=CacheConfig(),
            replica_scheduler_config=SCHEDULERS[scheduler](),
        ),
        request_generator_config=SyntheticRequestGeneratorConfig(
            num_requests=40,
            length_generator_config=lengths,
            interval_generator_config=PoissonRequestIntervalGeneratorConfig(qps=qps),
        ),
        execution_time_predictor_config=AnalyticExecutionTimePredictorConfig(
            prediction_max_prefill_chunk_size=1024,
            prediction_max_batch_size=16,
            prediction_max_tokens_per_request=1024,
            use_native_execution_time_predictor=native,
        ),
        metrics_config=MetricsConfig(
            write_metrics=False, enable_chrome_trace=False, output_dir=str(tmp_path)
        ),
    )
    simulator = Simulator(config)
    requests = [event._request for _, event in simulator._event_queue]
    simulator.run()
    assert len(requests) == 40
    assert all(request.completed for request in requests)
    return sorted(requests, key=lambda request: request.id)


def mixed_lengths() -> UniformRequestLengthGeneratorConfig:
    return UniformRequestLengthGeneratorConfig(
        min_tokens=64, max_tokens=1024, prefill_to_decode_ratio=4.0
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_tables_cover_every_batch_of_a_saturated_cluster(
    tmp_path: Path, scheduler: str
) -> None:
    finished_requests(tmp_path, scheduler, mixed_lengths(), qps=100.0)


def test_parallel_replicas_run_too(tmp_path: Path) -> None:
    finished_requests(
        tmp_path,
        "sarathi",
        mixed_lengths(),
        qps=50.0,
        tensor_parallel_size=2,
        num_pipeline_stages=2,
    )


def test_both_paths_simulate_the_same_history(tmp_path: Path) -> None:
    native, python = (
        finished_requests(tmp_path, "sarathi", mixed_lengths(), qps=50.0, native=native)
        for native in (True, False)
    )
    for ours, theirs in zip(native, python, strict=True):
        assert ours.completed_at == pytest.approx(theirs.completed_at, rel=1e-9)


def test_a_lone_request_takes_the_sum_of_its_iterations(tmp_path: Path) -> None:
    lengths = FixedRequestLengthGeneratorConfig(
        prefill_tokens=512, decode_tokens=65, max_tokens=1024
    )
    request = finished_requests(tmp_path, "sarathi", lengths, qps=0.01)[0]
    # Two chunks of 256, then 64 tokens one by one; Llama-3-8B decodes at 12-13 ms on an A100.
    latency = request.completed_at - request.arrived_at
    assert 64 * 0.0120 + 0.02 < latency < 64 * 0.0130 + 0.06
