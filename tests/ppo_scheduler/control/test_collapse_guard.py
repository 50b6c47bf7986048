"""The guard sees a collapse, really intervenes, says so, and stops again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import CollapseGuardSection
from ppo_scheduler.control.collapse_guard import CollapseGuard
from ppo_scheduler.state import StateDict

KEYS = {
    "window": 16,
    "max_share": 0.9,
    "entropy_boost": 0.05,
    "temperature_boost": 1.5,
    "intervention_steps": 8,
}


def guard(num_replicas: int = 4, **keys: Any) -> CollapseGuard:
    return CollapseGuard(CollapseGuardSection(**{**KEYS, **keys}), num_replicas)


def feed(made: CollapseGuard, actions: list[int]) -> list[str]:
    """Observe rollouts of one decision each; return what was said."""
    said = [made.observe(np.array([action])) for action in actions]
    return [event for event in said if event is not None]


def even(count: int) -> list[int]:
    return [i % 4 for i in range(count)]


@given(
    batches=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=6)
)
def test_shares_are_those_of_the_last_window(batches: list[list[int]]) -> None:
    made = guard(enabled=False)
    for batch in batches:
        made.observe(np.array(batch))
    last = [action for batch in batches for action in batch][-16:]
    np.testing.assert_array_equal(made.shares, np.bincount(last, minlength=4) / len(last))


def test_shares_are_zero_before_the_first_decision() -> None:
    assert guard().shares.tolist() == [0.0] * 4


def test_collapse_raises_temperature_and_entropy() -> None:
    made = guard()
    assert (made.temperature_factor, made.entropy_coef(0.003)) == (1.0, 0.003)
    feed(made, [2] * 16)
    assert made.intervening
    assert (made.temperature_factor, made.entropy_coef(0.003)) == (1.5, 0.05)


def test_begin_and_end_are_told_with_numbers() -> None:
    made = guard()
    begin, end = feed(made, [2] * 16 + [0, 1, 3, 0, 1, 3, 0, 1])
    assert begin == (
        "collapse guard: replica 2 took 100.0% of the last 16 decisions (allowed 90.0%); "
        "intervention 1 for 8 decisions: temperature x1.5, entropy coefficient at least 0.05"
    )
    assert end == "collapse guard: intervention 1 ended; the largest share is now 50.0%"
    assert made.interventions == 1


def test_even_routing_is_left_alone() -> None:
    made = guard()
    assert feed(made, even(200)) == []
    assert made.interventions == 0


def test_a_collapse_that_lasts_is_met_again() -> None:
    made = guard()
    feed(made, [1] * (16 + 8))
    assert made.intervening
    assert made.interventions == 2


def test_a_single_replica_cannot_collapse() -> None:
    made = guard(num_replicas=1)
    assert feed(made, [0] * 50) == []


@pytest.mark.shows("collapse_guard.enabled")
def test_enabled_false_only_watches() -> None:
    made = guard(enabled=False)
    assert feed(made, [1] * 50) == []
    assert made.shares.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert (made.temperature_factor, made.entropy_coef(0.003)) == (1.0, 0.003)


@pytest.mark.shows("collapse_guard.window")
def test_window_must_be_full_before_anything_is_done() -> None:
    for window in (16, 40):
        made = guard(window=window)
        assert feed(made, [1] * (window - 1)) == []
        assert len(feed(made, [1])) == 1


@pytest.mark.shows("collapse_guard.max_share")
def test_max_share_is_what_is_still_allowed() -> None:
    actions = [0] * 12 + [1] * 4  # a share of 75 %
    assert feed(guard(max_share=0.75), actions) == []
    assert len(feed(guard(max_share=0.74), actions)) == 1


@pytest.mark.shows("collapse_guard.entropy_boost")
def test_entropy_boost_is_a_lower_bound_not_a_replacement() -> None:
    for boost in (0.05, 0.2):
        made = guard(entropy_boost=boost)
        feed(made, [1] * 16)
        assert made.entropy_coef(0.0) == boost
        assert made.entropy_coef(0.3) == 0.3


@pytest.mark.shows("collapse_guard.temperature_boost")
def test_temperature_boost_is_the_factor() -> None:
    for boost in (1.0, 3.0):
        made = guard(temperature_boost=boost)
        feed(made, [1] * 16)
        assert made.temperature_factor == boost


@pytest.mark.shows("collapse_guard.intervention_steps")
def test_intervention_steps_is_how_many_decisions_are_boosted() -> None:
    for steps in (3, 8):
        made = guard(intervention_steps=steps)
        feed(made, [1] * 16)
        boosted = 0
        while made.intervening:
            boosted += 1
            feed(made, [boosted % 4])
        assert boosted == steps


def test_an_intervention_boosts_the_update_it_begins_at_and_the_rollout_after_it() -> None:
    """Also one that is shorter than a rollout."""
    made = guard(intervention_steps=1)
    made.observe(np.array([1] * 20))
    assert made.entropy_coef(0.0) == made.entropy_coef(0.0) == 0.05, "asking changes nothing"
    assert made.temperature_factor == 1.5
    made.observe(np.array(even(20)))
    assert (made.temperature_factor, made.entropy_coef(0.0)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("intervention_steps", "rollout", "boosted"),
    [(1, 20, 1), (20, 20, 1), (21, 20, 2), (40, 20, 2), (2000, 256, 8)],
)
def test_it_lasts_whole_rollouts(intervention_steps: int, rollout: int, boosted: int) -> None:
    made = guard(intervention_steps=intervention_steps)
    made.observe(np.array([1] * 20))
    updates = 0
    while made.entropy_coef(0.0) > 0.0:
        updates += 1
        made.observe(np.array(even(rollout)))
    assert updates == boosted


@given(batch=st.integers(1, 20))
def test_decisions_count_however_many_come_at_once(batch: int) -> None:
    made = guard()
    made.observe(np.array([1] * 16))
    made.observe(np.array(even(batch)))
    assert made.intervening == (batch < 8)


@given(before=st.integers(0, 40), seed=st.integers(0, 100))
def test_guarding_continues_from_a_file_bit_by_bit(
    before: int, seed: int, through_file: Callable[[StateDict], StateDict]
) -> None:
    rng = np.random.default_rng(seed)
    actions = np.where(rng.random(80) < 0.93, 1, rng.integers(0, 4, 80)).tolist()
    original, restored = guard(), guard()
    feed(original, actions[:before])
    restored.load_state_dict(through_file(original.state_dict()))
    np.testing.assert_array_equal(original.shares, restored.shares)
    for action in actions[before:]:
        assert feed(original, [action]) == feed(restored, [action])
        assert original.temperature_factor == restored.temperature_factor
        assert original.entropy_coef(0.0) == restored.entropy_coef(0.0)
    assert original.interventions == restored.interventions


def test_a_shorter_window_on_resume_keeps_the_newest_decisions() -> None:
    long, short = guard(window=32, enabled=False), guard(window=16)
    feed(long, [1] * 16 + [2] * 16)
    short.load_state_dict(long.state_dict())
    assert short.shares.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_switching_the_guard_off_on_resume_ends_the_intervention() -> None:
    on, off = guard(), guard(enabled=False)
    feed(on, [1] * 16)
    off.load_state_dict(on.state_dict())
    assert (off.temperature_factor, off.entropy_coef(0.0)) == (1.0, 0.0)
