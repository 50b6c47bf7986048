"""When statistics are collected and when learning begins."""

from __future__ import annotations

from ppo_scheduler.config.learner_sections import StabilizationSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.state import StateDict


class StatisticsStabilizer:
    """Lets the normalizers settle before the first gradient step.

    A cold start collects feature statistics in its first ``collect_steps`` decisions. A warm
    start brings those its policy was cloned with, and keeps them: other statistics would make
    another policy of the same weights. Reward statistics collect in both cases.
    """

    def __init__(self, section: StabilizationSection, warm_started: bool) -> None:
        self.warm_started = warm_started
        self._section = section

    def learning(self, global_step: int) -> bool:
        """Return whether the decision after ``global_step`` others is one to learn from."""
        return global_step >= self._section.collect_steps

    def collects_observations(self, global_step: int) -> bool:
        """Return whether the next observation moves the feature statistics.

        Raises:
            UserError: a cold start that would never collect any.
        """
        if self.warm_started or self._section.keep_updating:
            return self._section.keep_updating
        if self._section.collect_steps == 0 and global_step == 0:
            raise UserError(
                "statistics_stabilization: collect_steps=0 with keep_updating=false leaves a "
                "policy without a warm start no feature statistics; set collect_steps to 1 or "
                "more, or keep_updating to true, or start from a pretrained policy"
            )
        return not self.learning(global_step)

    def state_dict(self) -> StateDict:
        return {"warm_started": self.warm_started}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore how the training began: a resumed run is built without its warm start."""
        self.warm_started = state["warm_started"]
