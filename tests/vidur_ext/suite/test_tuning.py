"""Rivals are told what serves them best on validation workloads, after as many tries for each."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import limits
from vidur_ext.config.routers import CacheAwareSection, RoutersSection, StickyUncachedSection
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.runner import runs_on_engine
from vidur_ext.suite.tuning import (
    REQUESTS,
    TRIES,
    WORKLOADS,
    Tuned,
    candidates,
    told,
    tunable,
    tuned_scenarios,
)
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import validation_table

RIVALS = {"schedulers": ["bounded_hash", "least_outstanding"]}
SECTIONS = list(RoutersSection.model_fields)


@pytest.fixture
def config(make_config) -> TrainingConfig:
    return make_config(evaluation=RIVALS)


def silent(name: str, done: int, count: int) -> None:
    """Show nothing."""


def test_the_first_try_is_what_the_config_says() -> None:
    section = CacheAwareSection(match_share=0.1, imbalance_requests=3.0)
    assert next(candidates(section)) == section


@pytest.mark.parametrize("name", SECTIONS)
def test_as_many_different_settings_are_tried_of_each(name: str) -> None:
    tried = list(candidates(getattr(RoutersSection(), name)))
    assert len({one.model_dump_json() for one in tried}) == len(tried) == TRIES


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_is_tried_far_below_and_above_its_default(name: str) -> None:
    section = getattr(RoutersSection(), name)
    tried = [one.model_dump() for one in candidates(section)]
    for key, field in type(section).model_fields.items():
        low, high = limits(field)
        span = high - low if high == 1.0 else 16.0 * (field.default - low)
        values = np.array([one[key] for one in tried]) - low
        assert values.min() < 0.1 * span
        assert 0.8 * span < values.max() <= span


def test_settings_without_an_upper_end_are_as_often_below_their_default_as_above() -> None:
    # tolerance 2 may be 1 or more: from 1 + 1/16 to 1 + 16.
    tried = np.array([one.tolerance for one in candidates(StickyUncachedSection())])[1:]
    assert abs(int((tried < 2.0).sum()) - int((tried > 2.0).sum())) <= 1
    assert tried.min() >= 1.0625


def test_only_compared_heuristics_with_settings_are_tuned(config) -> None:
    assert tunable(config) == ["bounded_hash"]


def test_the_best_of_the_tries_on_validation_workloads_is_taken(config, tmp_path) -> None:
    found = tuned_scenarios(tmp_path / "tuning.json", {"small": config}, 1, silent)
    tuned = found["small"]["bounded_hash"]

    def mean_e2e(scenario: TrainingConfig) -> float:
        size = {"validation_seeds": WORKLOADS, "validation_requests": REQUESTS}
        section = scenario.checkpointing.model_copy(update=size)
        drawn = scenario.model_copy(update={"checkpointing": section})
        tables = {seed: validation_table(drawn, seed) for seed in range(WORKLOADS)}
        runs = runs_on_engine(scenario, engine_cluster(scenario), "bounded_hash", None, tables)
        first = int(scenario.evaluation.warmup_fraction * REQUESTS)
        return float(np.mean([(run.completed_at - run.arrived_at)[first:] for run in runs]))

    assert tuned.untuned_e2e_s == pytest.approx(mean_e2e(config), rel=1e-9)
    assert tuned.e2e_s == pytest.approx(mean_e2e(told(config, found["small"])), rel=1e-9)
    assert tuned.e2e_s < tuned.untuned_e2e_s
    others = [
        told(config, {"bounded_hash": Tuned({"load_factor": factor}, 0.0, 0.0)})
        for factor in (1.1, 4.0)
    ]
    assert all(tuned.e2e_s <= 1.01 * mean_e2e(one) for one in others)


def test_what_was_found_before_is_not_looked_for_again(config, tmp_path) -> None:
    file = tmp_path / "tuning.json"
    settings = {"settings": {"load_factor": 7.5}, "e2e_s": 1.0, "untuned_e2e_s": 2.0}
    file.write_text(json.dumps({"small": {"bounded_hash": settings}}))
    before = file.read_bytes()
    found = tuned_scenarios(file, {"small": config}, 1, silent)
    assert told(config, found["small"]).routers.bounded_hash.load_factor == 7.5
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", '{"small": {"bounded_hash": {"settings": 1}}}'])
def test_a_damaged_record_is_refused(config, tmp_path, text) -> None:
    file = tmp_path / "tuning.json"
    file.write_text(text)
    with pytest.raises(
        UserError, match=r"tuning.json: the rivals' settings cannot be read .*delete"
    ):
        tuned_scenarios(file, {"small": config}, 1, silent)
    assert file.read_text() == text


def test_settings_that_no_heuristic_may_have_are_refused(config, tmp_path) -> None:
    file = tmp_path / "tuning.json"
    settings = {"settings": {"load_factor": 0.5}, "e2e_s": 1.0, "untuned_e2e_s": 2.0}
    file.write_text(json.dumps({"small": {"bounded_hash": settings}}))
    with pytest.raises(UserError, match=r"tuning\.json: the rivals' settings cannot be read"):
        tuned_scenarios(file, {"small": config}, 1, silent)
