"""What vLLM 0.33 decided in recorded cases, step by step; ``benchmarks/record_vllm.py`` records."""

from __future__ import annotations

import pytest
from vllm_parity import GOLDEN, first_difference, read_cases

CASES = read_cases(GOLDEN)


def test_the_recorded_cases_cover_what_can_happen():
    configs = [case["config"] for case in CASES]
    assert {"chat", "burst", "thrash"} <= {case["kind"] for case in CASES}
    assert {config["prefix_caching"] for config in configs} == {True, False}
    assert {config["reserve_full_prompt"] for config in configs} == {True, False}
    assert any(config.get("watermark") for config in configs)
    assert {config["block_size"] for config in configs} >= {1, 8, 16}
    assert any(case["preempted"] for case in CASES)
    assert any(hit for case in CASES for _, _, hit in case["resumed"])
    assert any(finish is None for case in CASES for finish in case["finished"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["kind"])
def test_every_decision_is_vllms(case):
    assert first_difference(case) is None
