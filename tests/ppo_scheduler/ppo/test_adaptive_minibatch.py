"""The minibatch grows after early stops, shrinks after calm updates, and keeps its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import OptimizationSection
from ppo_scheduler.ppo.update import AdaptiveMinibatch

TARGET = 0.02


def minibatch(initial: int = 128, **keys: Any) -> AdaptiveMinibatch:
    base = {"adaptive_minibatch": True, "min_minibatch_size": 32, "max_minibatch_size": 512}
    return AdaptiveMinibatch(OptimizationSection(**{**base, **keys}), initial)


def sizes(made: AdaptiveMinibatch, stops: list[bool], kl: float = 0.001) -> list[int]:
    seen = []
    for stopped in stops:
        made.after_update(stopped, kl, TARGET)
        seen.append(made.size)
    return seen


@pytest.mark.shows("advanced_optimization.adaptive_minibatch")
def test_adaptive_minibatch_doubles_after_a_stop_and_halves_after_a_calm_update() -> None:
    assert sizes(minibatch(), [True, False, False]) == [256, 128, 64]
    assert sizes(minibatch(adaptive_minibatch=False), [True, True, False]) == [128, 128, 128]


@pytest.mark.shows("advanced_optimization.max_minibatch_size")
def test_max_minibatch_size_is_the_upper_bound() -> None:
    for bound in (200, 512):
        assert sizes(minibatch(max_minibatch_size=bound), [True] * 5)[-1] == bound


@pytest.mark.shows("advanced_optimization.min_minibatch_size")
def test_min_minibatch_size_is_the_lower_bound() -> None:
    for bound in (32, 50):
        assert sizes(minibatch(min_minibatch_size=bound), [False] * 5)[-1] == bound


@pytest.mark.parametrize("kl", [TARGET / 2, TARGET, float("nan")])
def test_an_update_that_used_its_room_keeps_the_size(kl: float) -> None:
    assert sizes(minibatch(), [False], kl) == [128]


def test_without_a_target_there_is_nothing_to_adapt_to() -> None:
    made = minibatch()
    made.after_update(False, 0.0, None)
    assert made.size == 128


@given(stops=st.lists(st.booleans(), max_size=20), later=st.lists(st.booleans(), max_size=20))
def test_adapting_continues_from_its_state(stops: list[bool], later: list[bool]) -> None:
    original, restored = minibatch(), minibatch()
    sizes(original, stops)
    restored.load_state_dict(original.state_dict())
    assert restored.size == original.size
    assert sizes(original, later) == sizes(restored, later)


def test_bounds_and_switch_of_a_resumed_run_are_those_of_its_config() -> None:
    grown = minibatch()
    sizes(grown, [True, True])
    narrower, off = minibatch(max_minibatch_size=256), minibatch(64, adaptive_minibatch=False)
    for made in (narrower, off):
        made.load_state_dict(grown.state_dict())
    assert (narrower.size, off.size) == (256, 64)
