"""Policies, and the files by which a gateway routes."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.observation import Observation
from ppo_scheduler.policy import routing_policy
from vidur_ext.gateway.export import export_for_gateway
from vidur_ext.gateway.trained import Trained
from vidur_ext.routing.features import observation_schema


@pytest.fixture
def trained_policy():
    """Return a policy with random weights that saw features of any size."""

    def make(config) -> routing_policy.RoutingPolicy:
        schema = observation_schema(config.observation)
        policy = routing_policy.RoutingPolicy(
            schema, config.actor_critic_architecture, config.observation.clip
        )
        policy.initialize(torch_seed=1)
        rng = np.random.default_rng(0)
        rows = [rng.exponential(30.0, (300, len(n))) for n in (schema.replica, schema.context)]
        policy.collect(Observation(rows[0][:, None], rows[1], np.empty((300, 0))))
        return policy

    return make


@pytest.fixture
def exported(tmp_path, trained_policy):
    """Write the file of a policy for the cluster of a config; return its path."""

    def export(config):
        path = tmp_path / "router.json"
        export_for_gateway(Trained(trained_policy(config).state_dict(), path, None), config, path)
        return path

    return export
