"""Simulations that branch: what becomes of several choices when the same requests come later."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Floats, Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.ppo.terminal_value import Branches
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import branch_table

_LOAD_LEVELS = (0.7, 1.0)
"""Arrival rates, relative to the workload's."""
_RANDOM_SHARE = 0.1
"""Of the choices between branches."""


class BranchingSimulations:
    """Collects decisions whose choices were gone through, while a policy routes.

    ``parallel_training.num_envs`` simulations run side by side, at several load levels in turn, and
    some choices are random: the policy is to be corrected where it does not go yet, too. The
    branches are all the policy's.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._num_envs = config.parallel_training.num_envs
        self._envs = RoutingEnvironments(engine_cluster(config), config, self._num_envs)
        self._horizon = config.terminal_value.horizon * config.cluster.num_replicas
        self._rng = generator(config.training.seed, Purpose.BRANCH_CHOICES)
        self._lengths: Floats | None = None

    def collect(self, policy: RoutingPolicy) -> Branches:
        """Return ``terminal_value.decisions`` decisions, those of one moment after the other's."""
        wanted, length = (
            self._config.terminal_value.decisions,
            self._config.training.episode_requests,
        )
        moments = -(-wanted // self._num_envs)
        every = max(1, length // moments)
        kept: list[Branches] = []
        for episode in range(-(-moments * every // length)):
            self._begin(episode, length)
            for decision in range(length):
                actions = policy.greedy(self._envs.observation)
                if decision % every == every - 1 and len(kept) < moments:
                    kept.append(self._branch(policy))
                self._envs.step(self._disturbed(actions))
            self._lengths = self._envs.lengths()
        return _joined(kept, wanted)

    def _begin(self, episode: int, length: int) -> None:
        first = episode * self._num_envs
        # The last decision that branches has a future as well.
        count = length + self._horizon
        tables = [
            branch_table(self._config, first + env, count, _LOAD_LEVELS[env % len(_LOAD_LEVELS)])
            for env in range(self._num_envs)
        ]
        self._envs.begin(tables, lengths=self._lengths)

    def _disturbed(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        at_random = self._rng.random(self._num_envs) < _RANDOM_SHARE
        anything = self._rng.integers(0, self._envs.num_replicas, self._num_envs)
        return np.where(at_random, anything, actions)

    def _branch(self, policy: RoutingPolicy) -> Branches:
        observation = self._envs.observation
        costs = self._envs.costs(np.ones(self._num_envs, dtype=np.bool_))
        choices = self._choices(costs)
        branches = self._envs.branches(choices, self._horizon)
        while branches.waiting:
            branches.step(policy.greedy(branches.observation))
        weight = self._config.lookahead.ttft_weight
        seconds = branches.completed_at + weight * branches.prefill_completed_at
        # Arrivals are the same in all branches of a decision: only the ends make a difference.
        return Branches(observation, costs, choices, seconds.sum(axis=1).reshape(choices.shape))

    def _choices(self, costs: Floats) -> NDArray[np.int64]:
        """Return for each decision [B, K] the cheapest half of the choices, and others."""
        count = min(self._config.terminal_value.choices, self._envs.num_replicas)
        cheapest = (count + 1) // 2
        order = self._rng.random(costs.shape)
        rank = costs.argsort(axis=1).argsort(axis=1)
        order[rank < cheapest] -= 1.0
        return order.argsort(axis=1)[:, :count]


def _joined(parts: list[Branches], count: int) -> Branches:
    """Return the first ``count`` decisions of all parts."""
    return Branches(
        Observation(
            np.concatenate([part.observation.replicas for part in parts])[:count],
            np.concatenate([part.observation.context for part in parts])[:count],
            np.concatenate([part.observation.telemetry for part in parts])[:count],
        ),
        np.concatenate([part.costs for part in parts])[:count],
        np.concatenate([part.choices for part in parts])[:count],
        np.concatenate([part.outcomes for part in parts])[:count],
    )
