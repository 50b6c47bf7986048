"""What a prediction costs, and with profiles at hand, how well the predictor meets them."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from fit_predictor import (
    error_table,
    fit_device,
    gemm_pairs,
    layer_errors,
    profiled_devices,
    relative_errors,
)
from harness import Figures, run_benchmark_with_options
from kernel_profiles import Floats, Profile, read_profiles
from vidur.config import CacheConfig, ReplicaConfig
from vidur.entities import Batch
from vidur.types import ReplicaId

from vidur_ext.execution_time import tables
from vidur_ext.execution_time.devices import device_constants
from vidur_ext.vidur import analytic_predictor
from vidur_ext.vidur.analytic_predictor import (
    AnalyticExecutionTimePredictor,
    AnalyticExecutionTimePredictorConfig,
)

_VARIABLE = "VIDUR_PROFILES"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--profiles``."""
    parser.add_argument(
        "--profiles",
        type=Path,
        default=os.environ.get(_VARIABLE),
        help="folder of <device>_<model>_mlp.csv and …_attention.csv, in the format of Vidur's "
        f"profiler: also print the errors (default: ${_VARIABLE})",
    )


def measure(arguments: argparse.Namespace) -> Figures:
    """Return the predictor's costs and, with ``--profiles``, the fit's errors [%]."""
    figures: Figures = {}
    measured = None if arguments.profiles is None else read_profiles(Path(arguments.profiles))
    for device, profiles in profiled_devices(measured or ()).items():
        errors = error_table(profiles, device_constants(device))
        errors["mlp_layer_sum"] = layer_errors(profiles, device_constants(device))
        if len(profiles) > 1 and not arguments.quick:
            errors["gemm_held_out_model"] = _held_out(profiles)
        for operator, values in errors.items():
            prefix = f"{device}_{operator}"
            figures[f"{prefix}_median_abs_error_percent"] = 100 * float(np.median(np.abs(values)))
            figures[f"{prefix}_p90_abs_error_percent"] = 100 * float(
                np.percentile(np.abs(values), 90)
            )
    figures.update(_costs(200 if arguments.quick else 5000))
    return figures


def _held_out(profiles: Sequence[Profile]) -> Floats:
    """Fit without one model, predict that model; the errors of all."""
    errors = []
    for held_out in profiles:
        rest = [profile for profile in profiles if profile is not held_out]
        fitted = fit_device(rest, device_constants(held_out.device))
        errors.append(relative_errors(gemm_pairs([held_out], fitted)))
    return np.concatenate(errors)


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
    run_benchmark_with_options("analytic execution-time predictor", add_options, measure)
