"""The scale of rewards, and when statistics are collected and learning begins."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.config.learner_sections import StabilizationSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.policy.normalizer import RunningMeanStd
from ppo_scheduler.state import StateDict


class RewardScaler:
    """Divides rewards by the running standard deviation of the discounted return.

    As in Engstrom et al. 2020 ("Implementation Matters in Deep Policy Gradients", appendix A.1)
    and Stable-Baselines3's VecNormalize. Rewards are never shifted: taking a mean away would
    change which policy is best wherever episodes differ in length.
    """

    def __init__(self, shards: Shards, clip: float) -> None:
        self._clip = clip
        self._shards = shards
        self._returns: Floats = np.zeros(shards.size)
        self._statistics = RunningMeanStd(())

    @property
    def std(self) -> float:
        """What rewards are divided by: 1 until returns have varied."""
        return float(self._statistics.std)

    def scale(self, reward: Floats, discount: Floats, done: NDArray[np.bool_]) -> Floats:
        """Return scaled rewards [B], clipped to [-clip, clip].

        Args:
            reward: [B], one per environment.
            discount: [B], of what came before this reward.
            done: [B], true where this reward was the last of its episode.
        """
        self._returns = discount * self._returns + reward
        self._statistics.update(self._shards.together(self._returns))
        self._returns[done] = 0.0
        return np.clip(reward / self._statistics.std, -self._clip, self._clip)

    def state_dict(self) -> StateDict:
        return {
            "returns": torch.from_numpy(self._shards.together(self._returns).copy()),
            "statistics": self._statistics.state_dict(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the statistics, and the returns unless they are of other environments."""
        returns = state["returns"].numpy().copy()
        if len(returns) == self._shards.num_envs:
            self._returns = returns[self._shards.envs]
        self._statistics.load_state_dict(state["statistics"])


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
