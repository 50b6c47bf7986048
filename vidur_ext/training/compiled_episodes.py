"""Episodes on the compiled engine, many at once."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.config.training_config import LearnerConfig
from ppo_scheduler.ppo.learner import Learner
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.env.episode import EpisodeEnd
from vidur_ext.env.sight import Floats
from vidur_ext.training.episodes import EpisodePlan, Observer


class CompiledEpisodes:
    """Runs B episodes side by side; see ``episodes.Episodes``."""

    def __init__(
        self,
        simulation_config: Any,
        config: LearnerConfig,
        learner: Learner,
        num_envs: int,
        observer: Observer,
    ) -> None:
        """Read the cluster off Vidur's config.

        Raises:
            UserError: the cluster is one that only Vidur simulates.
        """
        self.num_envs = num_envs
        self._learner = learner
        self._observer = observer
        self._envs = RoutingEnvironments(
            simulation_config, config.observation, config.reward_config, num_envs
        )
        self._seen: bytes | None = None

    def run(self, plan: EpisodePlan) -> EpisodeEnd:
        envs, observer = self._envs, self._observer
        envs.begin(plan.tables, plan.scales)
        reward: Floats = np.zeros(self.num_envs)
        done = np.zeros(self.num_envs, dtype=np.bool_)
        if plan.recorded.size:
            reward = self._replay(plan)
        elif plan.previous_end is not None:
            reward, done = plan.previous_end.reward, ~done
            envs.components[:] = plan.previous_end.components
        while envs.waiting:
            observer.before_change()
            observer.on_completions(envs.completed)
            self._seen = envs.trace()
            actions = self._learner.decide(envs.observation, reward, done)
            envs.step(actions)
            reward, done = envs.reward, np.zeros(self.num_envs, dtype=np.bool_)
        observer.before_change()
        observer.on_completions(envs.completed)
        self._seen = None
        return EpisodeEnd(envs.reward, envs.components.copy())

    def digest(self) -> str | None:
        if self._seen is None:
            return None
        return hashlib.blake2b(self._seen, digest_size=16).hexdigest()

    def _replay(self, plan: EpisodePlan) -> Floats:
        """Take the recorded actions; return what the last one of them earned."""
        *earlier, last = plan.recorded.T
        for actions in earlier:
            self._replay_step(actions)
        self._seen = self._envs.trace()
        self._observer.on_replayed()
        self._replay_step(last)
        return self._envs.reward

    def _replay_step(self, actions: NDArray[np.int64]) -> None:
        self._envs.step(actions)
