"""Coefficients are where the config says, at every step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import KLSection, OptimizationSection, PPOSection
from ppo_scheduler.ppo.schedules import (
    entropy_coefficient,
    kl_coefficient,
    learning_rate_factor,
)

STEPS = st.integers(0, 10**7)


def entropy(step: int, **keys: Any) -> float:
    base = {
        "entropy_coef_initial": 0.1,
        "entropy_coef_final": 0.0,
        "entropy_decay_steps": 100,
        "entropy_warmup_coef": 0.0,
        "entropy_warmup_steps": 0,
    }
    return entropy_coefficient(PPOSection(**{**base, **keys}), step)


def kl(step: int, **keys: Any) -> float:
    base = {"initial_coef": 0.2, "final_coef": 0.1, "decay_steps": 100}
    return kl_coefficient(KLSection(**{**base, **keys}), step)


def rate(step: int, total: int = 1000, **keys: Any) -> float:
    base = {"lr_schedule": "linear", "lr_final_fraction": 0.1, "lr_warmup_steps": 0}
    return learning_rate_factor(OptimizationSection(**{**base, **keys}), step, total)


def test_entropy_coef_initial_holds_at_step_0() -> None:
    for initial in (0.02, 0.1):
        assert entropy(0, entropy_coef_initial=initial) == initial


@pytest.mark.shows("ppo_config.entropy_coef_final")
def test_entropy_coef_final_holds_from_the_end_of_the_decay() -> None:
    for final in (0.0, 0.03):
        assert entropy(100, entropy_coef_final=final) == final
        assert entropy(10**9, entropy_coef_final=final) == final


@pytest.mark.shows("ppo_config.entropy_decay_steps")
def test_entropy_decay_steps_is_the_length_of_the_decay() -> None:
    assert entropy(50, entropy_decay_steps=100) == pytest.approx(0.05)
    assert entropy(50, entropy_decay_steps=200) == pytest.approx(0.075)


@pytest.mark.shows("ppo_config.entropy_warmup_coef")
def test_entropy_warmup_coef_is_added_at_step_0() -> None:
    for coef in (0.0, 0.5):
        value = entropy(0, entropy_warmup_coef=coef, entropy_warmup_steps=10)
        assert value == pytest.approx(0.1 + coef)


@pytest.mark.shows("ppo_config.entropy_warmup_steps")
def test_entropy_warmup_steps_is_when_the_extra_is_gone() -> None:
    for length in (10, 40):
        keys = {"entropy_warmup_coef": 0.5, "entropy_warmup_steps": length}
        assert entropy(length // 2, **keys) == pytest.approx(entropy(length // 2) + 0.25)
        assert entropy(length, **keys) == entropy(length)
    assert entropy(0, entropy_warmup_coef=0.5, entropy_warmup_steps=0) == 0.1


@pytest.mark.shows("kl_regularization.initial_coef")
def test_initial_coef_weighs_the_reference_at_step_0() -> None:
    for initial in (0.1, 0.4):
        assert kl(0, initial_coef=initial) == initial


@pytest.mark.shows("kl_regularization.final_coef")
def test_final_coef_stays_after_the_decay() -> None:
    for final in (0.0, 0.05):
        assert kl(100, final_coef=final) == kl(10**9, final_coef=final) == final


@pytest.mark.shows("kl_regularization.decay_steps")
def test_decay_steps_is_the_length_of_the_reference_decay() -> None:
    assert kl(50, decay_steps=100) == pytest.approx(0.15)
    assert kl(50, decay_steps=200) == pytest.approx(0.175)


@pytest.mark.shows("advanced_optimization.lr_schedule")
def test_lr_schedule_shapes_the_way_down() -> None:
    quarter, half = (
        {
            schedule: rate(step, lr_schedule=schedule, lr_final_fraction=0.0)
            for schedule in ("constant", "linear", "cosine")
        }
        for step in (250, 500)
    )
    assert quarter == pytest.approx({"constant": 1.0, "linear": 0.75, "cosine": 0.8535533906})
    assert half == pytest.approx({"constant": 1.0, "linear": 0.5, "cosine": 0.5})


@pytest.mark.shows("advanced_optimization.lr_final_fraction")
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_lr_final_fraction_is_reached_at_the_end_and_kept(schedule: Any) -> None:
    for fraction in (0.0, 0.1, 1.0):
        keys = {"lr_schedule": schedule, "lr_final_fraction": fraction}
        assert rate(1000, **keys) == rate(10**9, **keys) == fraction


@pytest.mark.shows("advanced_optimization.lr_warmup_steps")
def test_lr_warmup_steps_is_the_length_of_the_rise_from_zero() -> None:
    for length in (10, 100):
        assert rate(0, lr_warmup_steps=length) == 0.0
        assert rate(length // 2, lr_warmup_steps=length) == pytest.approx(0.5)
        assert rate(length, lr_warmup_steps=length) == 1.0
    assert rate(0, lr_warmup_steps=0) == 1.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_decay_spans_what_the_warmup_left_of_training(schedule: Any) -> None:
    keys = {"lr_schedule": schedule, "lr_final_fraction": 0.0, "lr_warmup_steps": 600}
    assert rate(800, **keys) == pytest.approx(0.5)
    assert rate(1000, **keys) == 0.0


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_warmup_as_long_as_training_never_divides_by_zero(schedule: Any) -> None:
    keys = {"lr_schedule": schedule, "lr_warmup_steps": 1000}
    assert rate(999, **keys) == pytest.approx(0.999)
    assert rate(1000, **keys) == 1.0


@given(step=STEPS, total=st.integers(1, 10**6), warmup=st.integers(0, 10**4))
def test_the_learning_rate_never_exceeds_its_peak_nor_falls_below_its_end(
    step: int, total: int, warmup: int
) -> None:
    for schedule in ("constant", "linear", "cosine"):
        factor = rate(step, total, lr_schedule=schedule, lr_warmup_steps=warmup)
        assert (0.0 if step < warmup else 0.1) <= factor <= 1.0


@given(step=STEPS, later=STEPS)
def test_decays_never_rise_again(step: int, later: int) -> None:
    first, second = sorted((step, later))
    assert entropy(second) <= entropy(first)
    assert kl(second) <= kl(first)
    for schedule in ("linear", "cosine"):
        assert rate(second, lr_schedule=schedule) <= rate(first, lr_schedule=schedule)
