"""What was measured on a GPU is compared with what the predictor says of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gpu_fidelity import MEASURED, iteration_figures, kernel_figures, measure
from gpu_iterations import (
    LLAMA_3_8B,
    Batch,
    Decoder,
    Timer,
    iteration_rows,
    write_iterations,
    write_kernels,
)

from ppo_scheduler.errors import UserError
from vidur_ext.calibration.measurements import Iterations
from vidur_ext.calibration.reading import read_measurements
from vidur_ext.execution_time.devices import device_named
from vidur_ext.execution_time.links import node_named
from vidur_ext.execution_time.models import model_named
from vidur_ext.execution_time.roofline import RooflineModel

H100 = device_named("h100").model_copy(update={"iteration_overhead_ms": 0.0})
ROOFLINE = RooflineModel(
    model_named(LLAMA_3_8B.name),
    H100,
    node_named("h100_dgx"),
    tensor_parallel=1,
    num_pipeline_stages=1,
)
BATCHES = [
    *(Batch(decodes, kv, 0) for decodes in (1, 8, 32, 128) for kv in (256, 1024, 4096)),
    *(Batch(0, 0, prompt) for prompt in (128, 256, 512, 1024, 2048)),
    *(Batch(decodes, 512, prompt) for decodes in (4, 48) for prompt in (128, 512, 1024, 2048)),
]


def predicted_ms(batch: Batch, roofline: RooflineModel = ROOFLINE) -> float:
    prompts = [(0, batch.prompt)] if batch.prompt else []
    return 1e3 * roofline.iteration_time_s(batch.decodes, batch.kv, prompts)


def write_batches(folder: Path, step_ms: Callable[[Batch], float]) -> None:
    rows = [
        {
            "decode_requests": batch.decodes,
            "kv_tokens_mean": batch.kv,
            "prefill_tokens": batch.prompt,
            "step_ms": step_ms(batch),
        }
        for batch in BATCHES
    ]
    write_iterations(folder / "iterations.csv", rows)


def test_calibrate_reads_the_iterations_that_are_written(tmp_path):
    batches = [Batch(decodes, 3, 0) for decodes in range(1, 21)] + [
        Batch(1, 2, n) for n in range(10)
    ]
    tiny = replace(LLAMA_3_8B, layers=1, q_heads=2, kv_heads=1, hidden=32, mlp=16, vocabulary=20)
    with torch.inference_mode():
        decoder = Decoder(tiny, 64, torch.device("cpu"))
        rows = iteration_rows(decoder, batches, Timer(torch.device("cpu")))
    write_iterations(tmp_path / "iterations.csv", rows)
    read = read_measurements(tmp_path / "iterations.csv")
    assert isinstance(read, Iterations)
    assert sorted(zip(read.decodes, read.mean_kv, read.prefill_tokens, strict=True)) == sorted(
        (batch.decodes, batch.kv, batch.prompt) for batch in batches
    )
    assert list(read.step_s) == pytest.approx([row["step_ms"] * 1e-3 for row in rows])


def test_errors_of_kernels_are_those_of_the_predicted_times():
    """Measured are 1.25, 0.8 and 1 times what is predicted: errors of -20, 25 and 0 percent."""
    few = ROOFLINE.operator_ms("attn_pre_proj", 64.0)
    many = ROOFLINE.operator_ms("attn_pre_proj", 2048.0)
    heads = {"q_heads": 32, "kv_heads": 8}
    decode = {**heads, "requests": 64, "kv": 4096}
    short = {**heads, "requests": 1, "kv": 16}
    prompt = {**heads, "tokens": 4096}
    figures = kernel_figures(
        H100,
        {
            "gemm": [
                {"k": 4096, "n": 6144, "tokens": 64, "ms": 1.25 * few},
                {"k": 4096, "n": 6144, "tokens": 64, "ms": 0.8 * few},
                {"k": 4096, "n": 6144, "tokens": 2048, "ms": many},
            ],
            "decode": [
                {**decode, "ms": 1.25 * ROOFLINE.attn_decode(64.0, 4096.0)},
                {**short, "ms": 0.8 * ROOFLINE.attn_decode(1.0, 16.0)},
            ],
            "prefill": [{**prompt, "ms": 0.8 * ROOFLINE.attn_prefill(0.0, 4096.0)}],
        },
    )
    assert figures == pytest.approx(
        {
            "gpu_gemm_median_error": 20.0,
            "gpu_gemm_bias": 0.0,
            "gpu_gemm_few_tokens_median_error": 22.5,
            "gpu_gemm_few_tokens_bias": 2.5,
            "gpu_gemm_many_tokens_median_error": 0.0,
            "gpu_gemm_many_tokens_bias": 0.0,
            "gpu_decode_median_error": 22.5,
            "gpu_decode_bias": 2.5,
            "gpu_decode_short_median_error": 25.0,
            "gpu_decode_short_bias": 25.0,
            "gpu_decode_long_median_error": 20.0,
            "gpu_decode_long_bias": -20.0,
            "gpu_prefill_median_error": 25.0,
            "gpu_prefill_bias": 25.0,
            "gpu_prefill_long_median_error": 25.0,
            "gpu_prefill_long_bias": 25.0,
        },
        abs=1e-9,
    )


def test_errors_of_iterations_are_told_apart_by_what_is_in_them(tmp_path):
    def step_ms(batch: Batch) -> float:
        if not batch.prompt:
            return 1.25 * predicted_ms(batch)
        return predicted_ms(batch) * (1.0 if batch.decodes else 0.8)

    write_batches(tmp_path, step_ms)
    iterations = read_measurements(tmp_path / "iterations.csv")
    assert isinstance(iterations, Iterations)
    figures = iteration_figures(H100, iterations)
    assert figures["gpu_iteration_decode_bias"] == pytest.approx(-20.0)
    assert figures["gpu_iteration_prompt_bias"] == pytest.approx(25.0)
    assert figures["gpu_iteration_mixed_median_error"] == pytest.approx(0.0, abs=1e-9)
    assert figures["gpu_iteration_median_error"] == pytest.approx(20.0)


def test_calibration_finds_a_gpu_whose_products_are_slower(tmp_path):
    slower = replace(ROOFLINE, device=H100.model_copy(update={"gemm_factor": 1.2}))
    write_batches(tmp_path, lambda batch: predicted_ms(batch, slower))
    heads = {"q_heads": 32, "kv_heads": 8, "ms": 1.0}
    kernels = {
        "gemm": [{"k": 4096, "n": 4096, "tokens": 1, "ms": 1.0}],
        "decode": [{**heads, "requests": 1, "kv": 2}],
        "prefill": [{**heads, "tokens": 1}],
    }
    write_kernels(tmp_path / "kernels.json", {"gpu": "none"}, kernels)
    figures = measure(argparse.Namespace(measured=tmp_path, device="h100", quick=True))
    assert figures["gpu_iteration_held_out_median_error"] > 5.0
    assert figures["gpu_calibrated_gemm_factor"] == pytest.approx(1.2, rel=0.002)
    assert figures["gpu_calibrated_median_error"] < 0.2


@pytest.mark.parametrize("text", ["", "{}", '{"gemm": []}', "[]"])
def test_a_file_of_kernels_that_is_none_is_refused_by_name(tmp_path, text):
    (tmp_path / "kernels.json").write_text(text)
    with pytest.raises(UserError, match=r"kernels\.json.*measure again"):
        measure(argparse.Namespace(measured=tmp_path, device="h100", quick=True))


@pytest.mark.parametrize("clocks", ["busy", "burst"])
def test_what_ships_says_what_it_was_measured_on(clocks):
    folder = MEASURED.parent / f"h100_{clocks}"
    about = json.loads((folder / "kernels.json").read_text())["about"]
    assert about["clocks"] == clocks
    assert "H100" in about["gpu"]
    assert about["torch"]
    assert about["date"]
    assert len(read_measurements(folder / "iterations.csv")) > 100
