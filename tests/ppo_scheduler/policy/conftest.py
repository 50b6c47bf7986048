"""Policies as a training leaves them, and the files that they are deployed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.config.learner_sections import ArchitectureSection
from ppo_scheduler.observation import Observation, ObservationSchema
from ppo_scheduler.policy.export import Meaning, export_policy
from ppo_scheduler.policy.routing_policy import RoutingPolicy

MakePolicy = Callable[..., RoutingPolicy]


def states(rng: np.random.Generator, replicas: int, features: int, common: int, count: int):
    """Return observations of different scales per feature, some of them far off."""
    scale = 10.0 ** (np.arange(features) % 5 - 2)
    far = np.where(rng.random((count, replicas, features)) < 0.02, 100.0, 1.0)
    return Observation(
        rng.normal(2.0, 1.0, (count, replicas, features)) * scale * far,
        rng.normal(2.0, 1.0, (count, common)),
        np.empty((count, 0)),
    )


@pytest.fixture
def draw_states():
    return states


@pytest.fixture
def make_policy() -> MakePolicy:
    """Return a policy whose every weight is random, biases and norms too, and that saw features."""

    def make(features: int = 5, common: int = 3, clip: float = 10.0, **keys) -> RoutingPolicy:
        names = [
            tuple(f"{kind}{i}" for i in range(n)) for kind, n in (("r", features), ("c", common))
        ]
        policy = RoutingPolicy(
            ObservationSchema(*names, ()), ArchitectureSection.model_validate(keys), clip
        )
        policy.initialize(torch_seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            policy.network.actor_head.weight.mul_(100.0)
            for weight in policy.network.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        policy.collect(states(np.random.default_rng(2), 4, features, common, 500))
        return policy

    return make


@pytest.fixture
def deploy(tmp_path) -> Callable[[RoutingPolicy], Path]:
    """Write the file of a policy; return its path."""

    def write(policy: RoutingPolicy) -> Path:
        path = tmp_path / "router.json"
        of_each = [
            {name: Meaning("requests", f"{name} of the test") for name in names}
            for names in (policy.schema.replica, policy.schema.context)
        ]
        export_policy(policy, path, *of_each, origin={"by": "a test"})
        return path

    return write
