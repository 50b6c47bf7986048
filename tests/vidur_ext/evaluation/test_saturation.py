"""Saturation is found by bisection, and scenarios stand where the page says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext import cli
from vidur_ext.config.loading import load_config
from vidur_ext.evaluation.saturation import PRECISION, highest_rate, saturation_of

ROOT = Path(__file__).parents[3]
SCENARIOS = ROOT / "configs" / "scenarios"
PAGE = (ROOT / "docs" / "workloads.md").read_text(encoding="utf-8")
_SLOW = {
    "slow_signals",
    "chat",
    "chat_mixed_devices",
    "api_templates",
    "api_slow_signals",
    "agent",
}
"""Their machine code takes long to be made, or the search; the first's cluster is that of most."""
_FOUND = re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d →]+) % \|", PAGE, re.MULTILINE)
SHARES = [
    pytest.param(name, shares, marks=[pytest.mark.slow] if name in _SLOW else [])
    for name, shares in _FOUND
]


@pytest.mark.parametrize("limit", [0.3, 1.0, 26.4, 5000.0])
@pytest.mark.parametrize("near", [0.01, 22.0, 1e4])
def test_the_highest_rate_is_found_wherever_the_search_begins(limit: float, near: float) -> None:
    found = highest_rate(lambda rate: rate <= limit, near)
    assert limit * (1 - PRECISION) <= found <= limit
    assert found == highest_rate(lambda rate: rate <= limit, near=1.0)


def test_neither_rate_nor_bursts_move_saturation() -> None:
    usual = saturation_of(load_config(None))
    other = saturation_of(
        load_config(None, ["workload.qps=5", "workload.burstiness_cv=4", "workload.rate_scale=2"])
    )
    assert other.sustained == usual.sustained
    assert (usual.rates, other.rates) == ((24.5,), (10.0,))
    assert other.loads == (10.0 / other.sustained,)


def test_twice_the_replicas_sustain_a_little_more_than_twice_the_rate() -> None:
    two, four = (
        saturation_of(load_config(None, [f"cluster.num_replicas={number}"])).sustained
        for number in (2, 4)
    )
    assert 2.0 < four / two < 2.1


def test_saturation_needs_the_compiled_engine() -> None:
    on_vidur = ["simulation.engine=vidur", "parallel_training.num_envs=1"]
    learned_there = ["ppo_config.advantage=gae", "warmstart.method=imitation"]
    config = load_config(None, [*on_vidur, *learned_there])
    with pytest.raises(UserError, match='found on the compiled engine, not on "vidur"'):
        saturation_of(config)


def test_the_page_names_every_scenario_that_needs_no_file() -> None:
    files = {path.stem for path in SCENARIOS.glob("*.json")} - {"trace", "mooncake"}
    assert {name for name, _ in _FOUND} == files | {"default"}


@pytest.mark.parametrize(("name", "shares"), SHARES)
def test_a_scenario_asks_for_the_share_of_saturation_that_the_page_says(name, shares) -> None:
    file = None if name == "default" else SCENARIOS / f"{name}.json"
    loads = saturation_of(load_config(file)).loads
    assert loads == pytest.approx([int(share) / 100 for share in shares.split("→")], rel=0.02)


def test_the_command_prints_json(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        sys, "argv", ["vidur-ppo", "saturation", "--json", "--set", "workload.qps=13"]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["router"] == "min_predicted_latency"
    assert document["rates_requests_per_s"] == [13.0]
    assert document["loads"] == [13.0 / document["sustained_requests_per_s"]]


def test_the_command_prints_a_table(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        sys, "argv", ["vidur-ppo", "saturation", "--set", "workload.rate_profile=[0.5,1]"]
    )
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert "12.25 -> 24.5 requests/s" in out
    assert re.search(r"load +4\d\.\d% -> 8\d\.\d%", out)
