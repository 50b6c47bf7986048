"""Stages follow requests seen, and end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import CurriculumSection, CurriculumStage
from ppo_scheduler.control.curriculum import Curriculum, StageScales


def curriculum(*stages: CurriculumStage, enabled: bool = True) -> Curriculum:
    return Curriculum(CurriculumSection(enabled=enabled, stages=stages))


def one_stage(**keys: Any) -> StageScales:
    return curriculum(CurriculumStage(until_requests=10, **keys)).scales(0)


EASY = CurriculumStage(until_requests=100, qps_scale=0.5, latency_threshold_scale=2.0)
HARDER = CurriculumStage(until_requests=300, qps_scale=0.8, penalty_scale=0.5)


@pytest.mark.shows("curriculum_learning.enabled")
def test_enabled_false_applies_no_stage() -> None:
    off = curriculum(EASY, HARDER, enabled=False)
    assert off.scales(0) == off.scales(10**9) == StageScales(2, 1.0, 1.0, 1.0)
    assert curriculum(EASY, HARDER).scales(0) == StageScales(0, 0.5, 2.0, 1.0)


@pytest.mark.shows("curriculum_learning.stages")
def test_stages_follow_each_other_and_end() -> None:
    made = curriculum(EASY, HARDER)
    assert [made.scales(seen).index for seen in (0, 99, 100, 299, 300, 10**9)] == [0, 0, 1, 1, 2, 2]
    assert made.scales(100) == StageScales(1, 0.8, 1.0, 0.5)
    assert made.scales(300) == StageScales(2, 1.0, 1.0, 1.0)


@pytest.mark.shows("curriculum_learning.stages[].until_requests")
def test_until_requests_is_the_first_request_of_the_next_stage() -> None:
    for end in (1, 50):
        made = curriculum(CurriculumStage(until_requests=end, qps_scale=0.5))
        assert made.scales(end - 1).qps_scale == 0.5
        assert made.scales(end).qps_scale == 1.0


@pytest.mark.shows("curriculum_learning.stages[].qps_scale")
def test_qps_scale_is_passed_on() -> None:
    assert one_stage(qps_scale=0.25) == StageScales(0, qps_scale=0.25)


@pytest.mark.shows("curriculum_learning.stages[].latency_threshold_scale")
def test_latency_threshold_scale_is_passed_on() -> None:
    assert one_stage(latency_threshold_scale=4.0) == StageScales(0, latency_threshold_scale=4.0)


@pytest.mark.shows("curriculum_learning.stages[].penalty_scale")
def test_penalty_scale_is_passed_on() -> None:
    assert one_stage(penalty_scale=0.0) == StageScales(0, penalty_scale=0.0)


@given(
    ends=st.lists(st.integers(1, 1000), min_size=1, max_size=6, unique=True).map(sorted),
    seen=st.integers(0, 1100),
)
def test_the_stage_is_the_number_of_ends_already_seen(ends: list[int], seen: int) -> None:
    made = curriculum(*(CurriculumStage(until_requests=end) for end in ends))
    assert made.scales(seen).index == sum(end <= seen for end in ends)
