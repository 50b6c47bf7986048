"""Decisions with the cost of every choice: look-ahead or the policy routes, look-ahead prices.

Where the policy goes it is labelled: a policy that has learned on its teacher's states alone does
not know those into which its own mistakes lead (Ross, Gordon and Bagnell 2011, "DAgger").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Floats
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.warmstart.demonstrations import Demonstrations, concatenate
from vidur_ext.workload.run_workloads import demonstration_table

TEACHER = "lookahead"


@dataclass
class _Recording:
    """What was kept of one environment, decision by decision."""

    load_level: float
    replicas: list[Floats] = field(default_factory=list)
    context: list[Floats] = field(default_factory=list)
    action: list[int] = field(default_factory=list)
    costs: list[Floats] = field(default_factory=list)


class CostLabels:
    """Collects priced decisions; every round has requests of its own.

    ``parallel_training.num_envs`` simulations run side by side, at ``warmstart.load_levels`` in
    turn; what their completions say of output lengths is known in the next round collected here.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._num_envs = config.parallel_training.num_envs
        self._envs = RoutingEnvironments(engine_cluster(config), config, self._num_envs)
        self._lengths: Floats | None = None

    def collect(self, number: int, policy: RoutingPolicy | None) -> Demonstrations:
        """Return the decisions of round ``number``, one environment's after the other's.

        Args:
            policy: what routes; None is look-ahead itself.
        """
        section = self._config.warmstart
        rng = generator(self._config.training.seed, Purpose.DEMONSTRATION_CHOICES, episode=number)
        levels = section.load_levels
        requests = math.ceil(section.labels_per_round / (self._num_envs * section.label_share))
        kept = [_Recording(levels[env % len(levels)]) for env in range(self._num_envs)]
        tables = [
            demonstration_table(
                self._config, number * self._num_envs + env, requests, one.load_level
            )
            for env, one in enumerate(kept)
        ]
        self._envs.begin(tables, lengths=self._lengths)
        while self._envs.waiting:
            self._decide(policy, rng, kept)
        self._lengths = self._envs.lengths()
        return concatenate([self._demonstrations(one) for one in kept if one.action])

    def _decide(
        self, policy: RoutingPolicy | None, rng: np.random.Generator, kept: list[_Recording]
    ) -> None:
        section, envs, observation = self._config.warmstart, self._envs, self._envs.observation
        labelled = rng.random(self._num_envs) < section.label_share
        asked = labelled if policy is not None else np.ones_like(labelled)
        costs = envs.costs(asked)
        actions = costs.argmin(axis=1) if policy is None else policy.greedy(observation)
        at_random = rng.random(self._num_envs) < section.random_share
        anything = rng.integers(0, envs.num_replicas, self._num_envs)
        actions = np.where(at_random, anything, actions)
        for env in np.flatnonzero(labelled):
            one = kept[env]
            one.replicas.append(observation.replicas[env])
            one.context.append(observation.context[env])
            one.action.append(int(actions[env]))
            one.costs.append(costs[env])
        envs.step(actions)

    def _demonstrations(self, one: _Recording) -> Demonstrations:
        schema, count = self._envs.schema, len(one.action)
        return Demonstrations(
            schema.replica,
            schema.context,
            (TEACHER,),
            _stacked(one.replicas),
            _stacked(one.context),
            np.array(one.action, dtype=np.int64),
            np.zeros(count, dtype=np.int64),
            np.full(count, one.load_level),
            _stacked(one.costs),
        )


def _stacked(rows: list[Floats]) -> NDArray[np.float32]:
    return np.stack(rows).astype(np.float32)
