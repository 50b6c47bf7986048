"""The learner in the router's place, with the recorded beginning of an episode before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Observation
from ppo_scheduler.ppo.learner import Learner
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Completion, Interval


class LearnerRouter:
    """Replays ``recorded`` actions, then asks the learner.

    Resuming in the middle of an episode means simulating its beginning again with the actions
    that were taken then. The learner's state already contains those decisions, so it is not
    asked, and what completed then has already been counted.
    """

    def __init__(
        self,
        learner: Learner,
        recorded: Sequence[int],
        on_completion: Callable[[Completion], None],
        on_replayed: Callable[[], None],
        before_change: Callable[[], None],
    ) -> None:
        """Begin at the start of an episode.

        Args:
            learner: decides behind the recorded actions.
            recorded: actions taken so far in this episode.
            on_completion: called with each request that completes behind them.
            on_replayed: called when the last recorded action has been replayed.
            before_change: called before anything changes that a checkpoint holds.
        """
        self._learner = learner
        self._recorded = recorded
        self._position = 0
        self._on_completion = on_completion
        self._on_replayed = on_replayed
        self._before_change = before_change

    @property
    def replaying(self) -> bool:
        return self._position < len(self._recorded)

    def observe(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest | None
    ) -> None:
        if not self.replaying:
            self._before_change()
            for completion in interval.completions:
                self._on_completion(completion)

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        if not self.replaying:
            return self._learner.decide(observation, reward, done)
        action = self._recorded[self._position]
        self._position += 1
        if self._position == len(self._recorded):
            self._on_replayed()
        return np.array([action])
