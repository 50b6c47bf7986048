"""Each scenario's workloads show what the scenario is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.run_workloads import (
    demonstration_table,
    evaluation_table,
    validation_table,
    workload_stream,
)

SCENARIOS = Path(__file__).parents[3] / "configs" / "scenarios"


@pytest.fixture
def shifting() -> TrainingConfig:
    return load_config(SCENARIOS / "shifting.json")


def thirds(table: RequestTable) -> list[float]:
    """Return the mean arrival rate of each third [requests/s]."""
    gaps = np.diff(table.arrived_at, prepend=0.0)
    return [1.0 / float(part.mean()) for part in np.array_split(gaps, 3)]


def shifts(table: RequestTable) -> bool:
    """Tell whether the rate goes up and comes down half-way, clear of what is due to chance."""
    slow, fast, middle = thirds(table)
    return slow < middle < fast and fast > 1.4 * slow


def test_each_workload_of_the_comparison_sees_the_whole_shift(shifting) -> None:
    assert all(shifts(evaluation_table(shifting, seed)) for seed in range(3))


def test_each_validation_workload_sees_the_whole_shift(shifting) -> None:
    assert all(shifts(validation_table(shifting, seed)) for seed in range(3))


def test_each_episode_of_the_training_sees_the_whole_shift(shifting) -> None:
    length = shifting.training.episode_requests
    stream = workload_stream(shifting, Purpose.WORKLOAD)
    assert all(shifts(stream.window(number * length, length)) for number in (0, 1, 99, 100, 2000))


def test_demonstrations_see_it_as_often_as_they_are_long(shifting) -> None:
    table = demonstration_table(shifting, 0, 4096, 1.0)
    assert shifts(table.slice(0, 2048))


def test_the_rates_of_the_shift_are_those_of_its_profile(shifting) -> None:
    rates = np.mean([thirds(evaluation_table(shifting, seed)) for seed in range(40)], axis=0)
    assert rates == pytest.approx([0.6 * 29.6, 1.1 * 29.6, 0.8 * 29.6], rel=0.05)


def test_outputs_of_the_heavy_tail_are_heavy_on_every_workload() -> None:
    config = load_config(SCENARIOS / "heavy_tail.json")
    for seed in range(3):
        output = np.sort(evaluation_table(config, seed).decode_tokens)
        assert output[-20:].sum() > 0.09 * output.sum()


def test_the_trace_scenario_says_that_its_file_is_not_there(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^traces/Azure\w+.csv: there is no such trace file; check"
    ):
        evaluation_table(load_config(SCENARIOS / "trace.json"), 0)
