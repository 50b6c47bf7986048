"""Small scenarios, and what their cells leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidur_ext.config.loading import dump_config
from vidur_ext.suite.plan import Plan, plan_suite

SMALL: dict[str, dict[str, object]] = {
    "training": {"total_requests": 80, "episode_requests": 80},
    "evaluation": {
        "schedulers": ["least_outstanding", "always_first"],
        "requests": 32,
        "vidur_workloads": 0,
    },
    "warmstart": {"method": "imitation", "teachers": ["vllm_dp"], "demo_requests": 32},
    "monitoring": {"log_level": "info"},
}


@pytest.fixture
def scenario(make_config, tmp_path) -> Callable[..., Path]:
    """Write the config of a small scenario; ``groups`` override keys."""

    def write(name: str = "small", **groups: dict[str, object]) -> Path:
        merged = {
            group: {**SMALL.get(group, {}), **groups.get(group, {})} for group in {*SMALL, *groups}
        }
        path = tmp_path / f"{name}.json"
        path.write_text(dump_config(make_config(**merged)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def plan(scenario) -> Callable[..., Plan]:
    """Plan small scenarios by their names."""

    def make(*names: str, seeds: int = 1, **groups: dict[str, object]) -> Plan:
        files = {name: scenario(name, **groups) for name in names or ("small",)}
        return plan_suite(files, seeds, asked_for=True)

    return make
