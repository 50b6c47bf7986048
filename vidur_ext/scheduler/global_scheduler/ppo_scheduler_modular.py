"""The PPO policy in Vidur's global-scheduler seat: a thin adapter around one door."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.observation import Observation
from vidur_ext.env.episode import EpisodeEnd
from vidur_ext.env.observation import ObservationBuilder
from vidur_ext.env.reward import RewardFunction
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.scheduler.global_scheduler.routing_global_scheduler import RoutingGlobalScheduler


class Router(Protocol):
    """Who decides: a learner, a frozen policy, or a teacher that is being watched."""

    def observe(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest | None
    ) -> None:
        """See the simulation itself before each decision, and once (without a request) at the end.

        For monitoring and for teachers; policies decide on observations alone.
        """

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return the replica [1] for the arriving request; see ``Learner.decide``."""


class PPOGlobalSchedulerModular(RoutingGlobalScheduler):
    """Builds the observation, hands it over with the reward, returns the replica."""

    def __init__(self, config: Any, replicas: Any) -> None:
        learner_config = config.cluster_config.global_scheduler_config.to_learner_config()
        self._observation_section = learner_config.observation
        super().__init__(config, replicas)
        self._builder = ObservationBuilder(
            self._observation_section,
            len(self._order),
            config.cluster_config.cache_config.block_size,
            self.estimator,
        )
        self._reward = RewardFunction(learner_config.reward_config, len(self._order))
        self._router: Router | None = None
        self._previous_end: EpisodeEnd | None = None
        self._first_decision = True
        self._digest = hashlib.blake2b(digest_size=16)

    def attach(
        self,
        router: Router,
        *,
        previous_end: EpisodeEnd | None = None,
        scales: StageScales | None = None,
    ) -> None:
        """Let ``router`` decide. Must be called before the simulation runs.

        Args:
            previous_end: how the router's previous episode ended; it is handed over with the
                first decision, whose ``done`` is then true.
            scales: the curriculum stage of this episode.
        """
        self._router = router
        self._previous_end = previous_end
        if scales is not None:
            self._reward.set_scales(scales)

    def digest(self) -> str:
        """Return a digest of every state seen so far: equal digests, equal simulations."""
        return self._digest.hexdigest()

    def finish(self, now: float) -> EpisodeEnd:
        """Close the episode at ``now``, when every request has been served."""
        snapshot, interval = self._tracker.observe(now)
        assert self._router is not None
        self._router.observe(snapshot, interval, None)
        reward, components = self._reward(snapshot, interval)
        return EpisodeEnd(np.array([reward]), np.array([components]))

    def _route(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest
    ) -> int:
        assert self._router is not None, "attach a router before the simulation runs"
        self._router.observe(snapshot, interval, request)
        reward, components = self._reward(snapshot, interval)
        done = False
        if self._first_decision and self._previous_end is not None:
            reward = float(self._previous_end.reward[0])
            components = self._previous_end.components[0].tolist()
            done = True
        self._first_decision = False
        self._digest.update(np.float64(snapshot.now).tobytes())
        self._digest.update(snapshot.table.tobytes())
        observation = self._builder.build(snapshot, interval, request, components)
        action = self._router.decide(observation, np.array([reward]), np.array([done]))
        return int(action[0])

    def _queue_slots(self) -> int:
        return int(self._observation_section.queue_slots)
