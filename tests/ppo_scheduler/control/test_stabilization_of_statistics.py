"""Normalizers collect before learning starts, and a warm start keeps its own statistics."""

from __future__ import annotations

import pytest

from ppo_scheduler.config.learner_sections import StabilizationSection
from ppo_scheduler.control.reward_scaling import StatisticsStabilizer
from ppo_scheduler.errors import UserError

STEPS = range(12)


def collects(stabilizer: StatisticsStabilizer) -> list[int]:
    return [step for step in STEPS if stabilizer.collects_observations(step)]


def test_collect_steps_delays_learning() -> None:
    for collect_steps in (0, 3, 7):
        stabilizer = StatisticsStabilizer(
            StabilizationSection(collect_steps=collect_steps, keep_updating=False),
            warm_started=False,
        )
        assert [stabilizer.learning(step) for step in STEPS] == [
            step >= collect_steps for step in STEPS
        ]


def test_collect_steps_sets_how_long_a_cold_start_collects() -> None:
    for collect_steps in (3, 7):
        section = StabilizationSection(collect_steps=collect_steps, keep_updating=False)
        assert collects(StatisticsStabilizer(section, False)) == list(range(collect_steps))


def test_a_warm_start_keeps_the_statistics_it_was_cloned_with() -> None:
    stabilizer = StatisticsStabilizer(
        StabilizationSection(collect_steps=3, keep_updating=False), warm_started=True
    )
    assert collects(stabilizer) == []
    assert not stabilizer.learning(2)


@pytest.mark.shows("statistics_stabilization.keep_updating")
@pytest.mark.parametrize("warm_started", [False, True])
def test_keep_updating_collects_for_ever(warm_started: bool) -> None:
    section = StabilizationSection(collect_steps=3, keep_updating=True)
    assert collects(StatisticsStabilizer(section, warm_started)) == list(STEPS)


def test_a_cold_start_that_would_never_collect_is_refused_with_the_way_out() -> None:
    stabilizer = StatisticsStabilizer(
        StabilizationSection(collect_steps=0, keep_updating=False), warm_started=False
    )
    with pytest.raises(UserError, match="collect_steps to 1 or more, or keep_updating to true"):
        stabilizer.collects_observations(0)


def test_a_resumed_run_remembers_that_it_was_warm_started() -> None:
    section = StabilizationSection(collect_steps=5, keep_updating=False)
    resumed = StatisticsStabilizer(section, warm_started=False)
    resumed.load_state_dict(StatisticsStabilizer(section, warm_started=True).state_dict())
    assert collects(resumed) == []
