"""What the tables of execution times cost, and a prediction from them."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness import Figures, run_benchmark
from vidur.config import CacheConfig, ReplicaConfig
from vidur.entities import Batch
from vidur.types import ReplicaId

from vidur_ext.execution_time import tables
from vidur_ext.vidur import analytic_predictor
from vidur_ext.vidur.analytic_predictor import (
    AnalyticExecutionTimePredictor,
    AnalyticExecutionTimePredictorConfig,
)


def measure(quick: bool) -> Figures:
    """Return the costs [ms, us]."""
    return _costs(200 if quick else 5000)


def _costs(repeats: int) -> Figures:
    batch = Batch(ReplicaId(0), [None] * 65, [1] * 64 + [448], [1024] * 64 + [448])
    tables.build_tables.cache_clear()
    analytic_predictor.native_predictor.cache_clear()
    first_ms = _us(lambda: _predictor(native=True), 1) / 1e3
    cached_ms = _us(lambda: _predictor(native=True), 20) / 1e3
    native, python = _predictor(native=True), _predictor(native=False)
    roofline = native.roofline
    return {
        "table_build_first_ms": first_ms,
        "table_build_cached_ms": cached_ms,
        "get_execution_time_native_us": _us(lambda: native.get_execution_time(batch, 0), repeats),
        "get_execution_time_python_us": _us(lambda: python.get_execution_time(batch, 0), repeats),
        "iteration_time_closed_form_us": _us(
            lambda: roofline.iteration_time_s(64, 1024.0, [(0, 448)]), repeats
        ),
    }


def _predictor(native: bool) -> AnalyticExecutionTimePredictor:
    config = AnalyticExecutionTimePredictorConfig(use_native_execution_time_predictor=native)
    replica = ReplicaConfig(
        device="a100", network_device="a100_dgx", num_pipeline_stages=1, tensor_parallel_size=1
    )
    return AnalyticExecutionTimePredictor(config, replica, CacheConfig())


def _us(call: Callable[[], object], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats * 1e6


if __name__ == "__main__":
    run_benchmark("cost of execution times", measure)
