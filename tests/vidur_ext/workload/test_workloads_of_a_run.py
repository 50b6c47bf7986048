"""Training, demonstrations and comparison of one run see different requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.sections import EvaluationSection, WorkloadSection
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.workload.run_workloads import (
    arrival_rates,
    demonstration_table,
    describe_workload,
    doubt_about_rates,
    evaluation_table,
    workload_stream,
)

SYNTHETIC = TrainingConfig(workload=WorkloadSection(qps=18.0))


def recorded(tmp_path: Path, count: int, **keys: Any) -> TrainingConfig:
    path = tmp_path / "trace.csv"
    rows = "".join(f"{i * 0.5},{100 + i},{i + 1}\n" for i in range(count))
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows)
    return TrainingConfig(
        workload=WorkloadSection(source="trace", trace_file=str(path), **keys),
        evaluation=EvaluationSection(num_seeds=2),
    )


def test_synthetic_purposes_and_seeds_are_different_streams() -> None:
    tables = [
        workload_stream(SYNTHETIC, Purpose.WORKLOAD).window(0, 64),
        demonstration_table(SYNTHETIC, 0, 64, 1.0),
        demonstration_table(SYNTHETIC, 1, 64, 1.0),
        evaluation_table(SYNTHETIC, 0).slice(0, 64),
        evaluation_table(SYNTHETIC, 1).slice(0, 64),
    ]
    assert len({table.digest() for table in tables}) == len(tables)


def test_presets_have_streams_of_their_own_for_every_purpose_too() -> None:
    config = TrainingConfig(workload=WorkloadSection(source="agent", qps=1.0))
    tables = [
        workload_stream(config, Purpose.WORKLOAD).window(0, 64),
        demonstration_table(config, 0, 64, 1.0),
        evaluation_table(config, 0).slice(0, 64),
        evaluation_table(config, 1).slice(0, 64),
    ]
    assert len({table.digest() for table in tables}) == len(tables)
    assert describe_workload(config).startswith(
        "1 requests/s, preset agent, Gamma arrivals (cv 2) of sessions, "
    )


def test_the_load_level_scales_the_rate_of_demonstrations() -> None:
    full, half = (demonstration_table(SYNTHETIC, 0, 64, level) for level in (1.0, 0.5))
    assert half.arrived_at.tolist() == (full.arrived_at * 2.0).tolist()


@pytest.mark.shows("workload.trace_file")
def test_a_trace_is_judged_on_requests_that_nobody_trained_on(tmp_path: Path) -> None:
    config = recorded(tmp_path, 500)
    judged = [set(evaluation_table(config, seed).prefill_tokens.tolist()) for seed in (0, 1)]
    trained = workload_stream(config, Purpose.WORKLOAD).window(0, 3000).prefill_tokens.tolist()
    shown = demonstration_table(config, 3, 200, 1.0).prefill_tokens.tolist()
    assert judged[0].isdisjoint(judged[1])
    assert (judged[0] | judged[1]).isdisjoint(trained)
    assert (judged[0] | judged[1]).isdisjoint(shown)
    assert len(judged[0]) == len(judged[1]) == 50


@pytest.mark.shows("workload.holdout_fraction")
@pytest.mark.parametrize(("fraction", "first"), [(0.2, 500), (0.5, 350)])
def test_the_holdout_fraction_moves_the_border(tmp_path: Path, fraction: float, first: int) -> None:
    config = recorded(tmp_path, 500, holdout_fraction=fraction)
    assert evaluation_table(config, 0).prefill_tokens[0] == first


def test_the_rate_scale_of_the_config_speeds_a_trace_up(tmp_path: Path) -> None:
    usual, doubled = (
        workload_stream(recorded(tmp_path, 100, rate_scale=scale), Purpose.WORKLOAD).window(0, 50)
        for scale in (1.0, 2.0)
    )
    assert usual.arrived_at[-1] == 49 * 0.5
    assert doubled.arrived_at[-1] == 49 * 0.25


def test_a_trace_too_short_to_judge_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its held-out part has 20 requests"):
        evaluation_table(recorded(tmp_path, 100), 0)


def test_the_description_states_what_was_cut(tmp_path: Path) -> None:
    config = recorded(tmp_path, 500, max_tokens=1000)
    assert "50 of 500 requests were cut to max_tokens=1000" in describe_workload(config)
    assert "2 x 50 requests held out" in describe_workload(config)


def test_the_description_states_rate_and_arrivals() -> None:
    assert "18 requests/s, Gamma arrivals (cv 2)" in describe_workload(SYNTHETIC)
    poisson = TrainingConfig(workload=WorkloadSection(qps=3.0, arrival="poisson"))
    assert "3 requests/s, Poisson arrivals" in describe_workload(poisson)
    shifting = WorkloadSection(qps=20.0, rate_scale=0.5, rate_profile=(0.6, 1.1), code_fraction=0)
    described = describe_workload(TrainingConfig(workload=shifting))
    assert "6 -> 11 requests/s, Gamma" in described
    assert "tail" not in described
    heavy = TrainingConfig(workload=WorkloadSection(output_tail_index=1.5))
    assert "20% code, outputs with tail index 1.5, " in describe_workload(heavy)


def test_the_description_of_a_trace_states_its_length_and_rate(tmp_path: Path) -> None:
    config = recorded(tmp_path, 401, rate_scale=4.0)
    assert "at 4 x its rate, 401 requests in 50 s, 8 requests/s" in describe_workload(config)
    assert doubt_about_rates(config) is None


@pytest.mark.parametrize(
    ("workload", "doubt"),
    [
        ({"qps": 1e6}, "ALL ARRIVE AT ONCE: 1e+06 requests/s"),
        ({"rate_scale": 1000.0}, "ALL ARRIVE AT ONCE: 2.45e+04"),
        ({"qps": 399.0}, None),
        ({"qps": 401.0}, "more than 4 replicas serve"),
        ({"qps": 20.0, "rate_profile": (1.0, 21.0)}, "ALL ARRIVE AT ONCE: 420"),
        ({"qps": 0.0101}, None),
        ({"qps": 0.002}, "NEVER MEET: one in 500 s"),
    ],
)
def test_rates_that_cannot_be_meant_are_pointed_out(
    workload: dict[str, Any], doubt: str | None
) -> None:
    config = TrainingConfig(workload=WorkloadSection(**workload))
    found = doubt_about_rates(config)
    assert (found is None) == (doubt is None)
    assert doubt is None or (doubt in found and found in describe_workload(config))


def test_a_trace_in_another_unit_is_pointed_out(tmp_path: Path) -> None:
    for scale, doubt in ((1000.0, "ALL ARRIVE AT ONCE: 2e+03"), (0.001, "NEVER MEET: one in 500")):
        found = doubt_about_rates(recorded(tmp_path, 101, rate_scale=scale))
        assert doubt in found
        assert "workload.trace_time_unit" in found


def test_the_rate_of_a_trace_is_that_of_all_its_requests(tmp_path: Path) -> None:
    assert arrival_rates(recorded(tmp_path, 100).workload) == (2.0,)
    assert arrival_rates(recorded(tmp_path, 100, rate_scale=3.0).workload) == (6.0,)
