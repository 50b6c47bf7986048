"""Measured points that the model must meet, and its own numbers pinned against drift.

Measured [ms]: one kernel of AIConfigurator's tables (vLLM 0.14 on A100, 0.24 elsewhere).
"""

from __future__ import annotations

import pytest

from vidur_ext.execution_time.devices import device_named
from vidur_ext.execution_time.links import node_named
from vidur_ext.execution_time.models import model_named
from vidur_ext.execution_time.operators import Gemm
from vidur_ext.execution_time.roofline import RooflineModel

LLAMA_8B = model_named("meta-llama/Llama-3-8B")


def on(device: str, degree: int = 1, stages: int = 1) -> RooflineModel:
    found = device_named(device)
    return RooflineModel(LLAMA_8B, found, node_named(found.node), degree, stages)


@pytest.mark.parametrize(
    ("device", "n", "tokens", "measured_ms"),
    [
        ("a100", 4096, 1, 0.02408),
        ("a100", 4096, 256, 0.05443),
        ("a100", 6144, 2048, 0.4059),
        ("h100", 4096, 1, 0.01505),
        ("h100", 4096, 256, 0.01958),
        ("h100", 6144, 2048, 0.12863),
        ("b200", 4096, 256, 0.01052),
        ("b200", 6144, 2048, 0.06521),
        ("l40s", 4096, 256, 0.06062),
        ("l40s", 6144, 2048, 0.42078),
    ],
)
def test_a_product_is_as_measured(device: str, n: int, tokens: int, measured_ms: float) -> None:
    found = device_named(device)
    product = Gemm(4096, n, "bf16", found.kernels, found.sheet, 1.0)
    assert product.ms(float(tokens)) == pytest.approx(measured_ms, rel=0.02)


@pytest.mark.parametrize(
    ("device", "batch", "kv", "measured_ms"),
    [
        ("a100", 1, 4096, 0.02949),
        ("a100", 32, 1024, 0.12297),
        ("a100", 128, 512, 0.20045),
        ("h100", 32, 1024, 0.05982),
        ("b200", 128, 512, 0.04938),
        ("l40s", 32, 1024, 0.21948),
    ],
)
def test_decode_attention_is_as_measured(
    device: str, batch: int, kv: int, measured_ms: float
) -> None:
    assert on(device).attn_decode(float(batch), float(kv)) == pytest.approx(measured_ms, rel=0.02)


@pytest.mark.parametrize(
    ("device", "chunk", "measured_ms"),
    [
        ("a100", 256, 0.02299),
        ("a100", 8192, 3.12001),
        ("h100", 2048, 0.089),
        ("b200", 8192, 0.51405),
        ("l40s", 2048, 0.29815),
    ],
)
def test_a_prompts_attention_is_as_measured(device: str, chunk: int, measured_ms: float) -> None:
    assert on(device).attn_prefill(0.0, float(chunk)) == pytest.approx(measured_ms, rel=0.05)


@pytest.mark.parametrize(
    ("kv", "chunk", "measured_ms"), [(2048, 512, 0.201), (4096, 416, 0.249), (8192, 1024, 1.336)]
)
def test_a_chunk_behind_cached_tokens_is_near_another_kernels(
    kv: int, chunk: int, measured_ms: float
) -> None:
    """Vidur's A100 profile: FlashInfer, where whole prompts were measured with FlashAttention."""
    assert on("a100").attn_prefill(float(kv), float(chunk)) == pytest.approx(measured_ms, rel=0.3)


@pytest.mark.parametrize(
    ("device", "degree", "stages", "batch", "expected_s"),
    [
        ("a100", 1, 1, (1, 1024.0, []), 0.011695975495),
        ("a100", 1, 1, (64, 1024.0, [(0, 448)]), 0.041989493033),
        ("h100", 1, 1, (64, 1024.0, [(0, 448)]), 0.016920815327),
        ("a100", 4, 2, (0, 0.0, [(4096, 2048)]), 0.062107646291),
        ("h200", 8, 1, (32, 512.0, []), 0.003446794282),
        ("b200", 1, 1, (64, 1024.0, [(0, 448)]), 0.009218087327),
        ("l40s", 1, 1, (32, 512.0, []), 0.026174899926),
        ("rtx_4090", 1, 1, (32, 512.0, []), 0.022004658907),
    ],
)
def test_iteration_times_do_not_drift(
    device: str,
    degree: int,
    stages: int,
    batch: tuple[int, float, list[tuple[int, int]]],
    expected_s: float,
) -> None:
    assert on(device, degree, stages).iteration_time_s(*batch) == pytest.approx(
        expected_s, rel=1e-6
    )
