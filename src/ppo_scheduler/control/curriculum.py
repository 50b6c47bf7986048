"""Stages of difficulty by requests seen."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from ppo_scheduler.config.learner_sections import CurriculumSection


@dataclass(frozen=True)
class StageScales:
    """What holds in one stage.

    index: the stage, from 0; the number of stages once none applies any more.
    qps_scale: factor on arrival rates.
    latency_threshold_scale: factor on ``reward_config.latency_threshold_s``.
    penalty_scale: factor on ``reward_config.threshold_penalty``.
    """

    index: int
    qps_scale: float = 1.0
    latency_threshold_scale: float = 1.0
    penalty_scale: float = 1.0


class Curriculum:
    """Looks the stage up; it has no state of its own, requests seen are the learner's step."""

    def __init__(self, section: CurriculumSection) -> None:
        stages = section.stages
        self._ends = [stage.until_requests for stage in stages] if section.enabled else []
        self._scales = [
            StageScales(
                index,
                stage.qps_scale,
                stage.latency_threshold_scale,
                stage.penalty_scale,
            )
            for index, stage in enumerate(stages)
        ]
        self._full = StageScales(len(stages))

    def scales(self, requests_seen: int) -> StageScales:
        """Return what holds for the request after ``requests_seen`` others.

        A stage ends when its ``until_requests`` have been seen. After the last stage, or with
        the curriculum off, every scale is 1.
        """
        stage = bisect_right(self._ends, requests_seen)
        return self._scales[stage] if stage < len(self._ends) else self._full
