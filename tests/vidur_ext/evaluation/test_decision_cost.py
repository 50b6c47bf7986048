"""The cost of a decision is that of one decision for one request."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.decision_cost import decision_cost_us
from vidur_ext.routing.features import observation_schema


class Clocked(RoutingPolicy):
    """Decides as it does; its clock says 50 µs per decision, and a second for the first one."""

    def __init__(self) -> None:
        config = TrainingConfig()
        super().__init__(
            observation_schema(config.observation),
            config.actor_critic_architecture,
            config.observation.clip,
        )
        self.initialize(0)
        replica, context = len(self.schema.replica), len(self.schema.context)
        telemetry = np.zeros((1, len(self.schema.telemetry)))
        self.collect(Observation(np.ones((1, 3, replica)), np.ones((1, context)), telemetry))
        self.now = 0.0
        self.shapes: set[tuple[int, ...]] = set()

    def greedy(self, observation: Observation) -> NDArray[np.int64]:
        self.now += 50e-6 if self.shapes else 1.0
        self.shapes.add(observation.replicas.shape)
        return super().greedy(observation)


def test_it_is_the_time_of_one_decision_without_the_first_ones(monkeypatch) -> None:
    policy = Clocked()
    monkeypatch.setattr("time.perf_counter", lambda: policy.now)
    assert decision_cost_us(policy, 3) == pytest.approx(50)
    assert policy.shapes == {(1, 3, len(policy.schema.replica))}
