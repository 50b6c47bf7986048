"""Measured points that the model must meet, and its own numbers pinned against drift.

Measured: medians [ms] from the operator profiles that Vidur publishes, one layer.
"""

from __future__ import annotations

import pytest

from vidur_ext.execution_time.devices import device_constants
from vidur_ext.execution_time.roofline import ModelShape, RooflineModel

LLAMA_8B = ModelShape(32, 32, 8, 4096, 14336, 128256)
LLAMA_2_7B = ModelShape(32, 32, 32, 4096, 11008, 32768)


@pytest.mark.parametrize(
    ("device", "degree", "operator", "tokens", "measured_ms"),
    [
        ("a100", 1, "attn_pre_proj", 1, 0.065),
        ("a100", 1, "attn_pre_proj", 4096, 1.899),
        ("a100", 2, "attn_post_proj", 1024, 0.087),
        ("a100", 4, "mlp_up_proj", 512, 0.126),
        ("a100", 8, "mlp_down_proj", 4096, 0.239),
        ("a100", 1, "mlp_act", 4096, 0.265),
        ("h100", 1, "mlp_up_proj", 4096, 0.993),
        ("h100", 1, "mlp_down_proj", 64, 0.040),
        ("h100", 2, "attn_pre_proj", 512, 0.046),
        ("h100", 4, "attn_rope", 4096, 0.021),
    ],
)
def test_token_operators_meet_the_profile(
    device: str, degree: int, operator: str, tokens: int, measured_ms: float
) -> None:
    roofline = RooflineModel(LLAMA_2_7B, device_constants(device), degree, 1)
    assert roofline.operator_ms(operator, float(tokens)) == pytest.approx(measured_ms, rel=0.16)


@pytest.mark.parametrize(
    ("batch", "kv", "measured_ms"),
    [(1, 4352, 0.025), (16, 1024, 0.064), (32, 4096, 0.340), (64, 8192, 1.349), (256, 1024, 0.635)],
)
def test_decode_attention_meets_the_profile(batch: int, kv: int, measured_ms: float) -> None:
    roofline = RooflineModel(LLAMA_8B, device_constants("a100"), 1, 1)
    assert roofline.attn_decode(float(batch), float(kv)) == pytest.approx(measured_ms, rel=0.08)


@pytest.mark.parametrize(
    ("kv", "chunk", "measured_ms"),
    [
        (0, 512, 0.048),
        (2048, 512, 0.201),
        (0, 2048, 0.310),
        (4096, 416, 0.249),
        (8192, 1024, 1.336),
        (0, 14208, 9.501),
    ],
)
def test_prefill_attention_meets_the_profile(kv: int, chunk: int, measured_ms: float) -> None:
    roofline = RooflineModel(LLAMA_8B, device_constants("a100"), 1, 1)
    assert roofline.attn_prefill(float(kv), float(chunk)) == pytest.approx(measured_ms, rel=0.08)


def test_a_begun_wave_of_decode_blocks_costs_a_step() -> None:
    # 13 and 14 requests of 8 KV heads are 104 and 112 blocks on 108 multiprocessors.
    roofline = RooflineModel(LLAMA_8B, device_constants("a100"), 1, 1)
    step = roofline.attn_decode(14.0, 15872.0) / roofline.attn_decode(13.0, 15872.0)
    assert step == pytest.approx(0.727 / 0.522, rel=0.05)


@pytest.mark.parametrize(
    ("device", "degree", "stages", "batch", "expected_s"),
    [
        ("a100", 1, 1, (1, 1024.0, []), 0.011627011431),
        ("a100", 1, 1, (64, 1024.0, [(0, 448)]), 0.047451688339),
        ("h100", 1, 1, (64, 1024.0, [(0, 448)]), 0.020511635393),
        ("a100", 4, 2, (0, 0.0, [(4096, 2048)]), 0.064231458349),
        ("a40", 1, 1, (32, 512.0, []), 0.034382644215),
        ("l40", 1, 1, (32, 512.0, []), 0.028213754717),
    ],
)
def test_iteration_times_do_not_drift(
    device: str,
    degree: int,
    stages: int,
    batch: tuple[int, float, list[tuple[int, int]]],
    expected_s: float,
) -> None:
    roofline = RooflineModel(LLAMA_8B, device_constants(device), degree, stages)
    assert roofline.iteration_time_s(*batch) == pytest.approx(expected_s, rel=1e-6)
