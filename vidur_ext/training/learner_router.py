"""The learner in the router's place, with the recorded beginning of an episode before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Observation
from ppo_scheduler.ppo.learner import Learner
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.training.episodes import Observer


class LearnerRouter:
    """Replays ``recorded`` actions, then asks the learner.

    Resuming in the middle of an episode means simulating its beginning again with the actions
    that were taken then. The learner's state already contains those decisions, so it is not
    asked, and what completed then has already been counted.
    """

    def __init__(self, learner: Learner, recorded: Sequence[int], observer: Observer) -> None:
        """Begin at the start of an episode, with the actions taken so far in it."""
        self._learner = learner
        self._recorded = recorded
        self._position = 0
        self._observer = observer

    @property
    def replaying(self) -> bool:
        return self._position < len(self._recorded)

    def observe(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest | None
    ) -> None:
        if self.replaying:
            return
        self._observer.before_change()
        latencies = [(c.e2e_s, c.ttft_s) for c in interval.completions]
        self._observer.on_completions(np.array(latencies).reshape(-1, 2))

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        if not self.replaying:
            return self._learner.decide(observation, reward, done)
        action = self._recorded[self._position]
        self._position += 1
        if self._position == len(self._recorded):
            self._observer.on_replayed()
        return np.array([action])
