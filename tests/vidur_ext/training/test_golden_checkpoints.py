"""Trainings saved by earlier versions of the program are taken up by the present one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.checkpoint.migrations import SCHEMA_VERSION
from ppo_scheduler.checkpoint.reading import load_named
from ppo_scheduler.config.learner_sections import LearnerConfig, ObservationSection
from ppo_scheduler.monitoring.scalars import FanOut
from ppo_scheduler.observation import Observation
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.ppo.learner import Learner
from vidur_ext.routing.features import observation_schema

GOLDEN = Path(__file__).parents[2] / "ppo_scheduler" / "checkpoint" / "golden"


OBSERVED = {
    1: ObservationSection(queue_slots=0, history=False),
    2: ObservationSection(),
    3: ObservationSection(),
    4: ObservationSection(),
    5: ObservationSection(),
    6: ObservationSection(),
    7: ObservationSection(),
}
"""What the policies in the golden checkpoints see."""
assert len(OBSERVED) == SCHEMA_VERSION


@pytest.mark.parametrize("advantage", ["counterfactual", "gae"])
@pytest.mark.parametrize(("version", "observed"), OBSERVED.items())
def test_a_learner_goes_on_from_every_version(version, observed, advantage):
    [path] = (GOLDEN / f"schema_{version}").glob("*.pt")
    tree = load_named(path).tree
    config = LearnerConfig.model_validate(
        {
            "observation": observed,
            "actor_critic_architecture": tree["learner"]["policy"]["architecture"],
            "ppo_config": {"rollout_len": 16, "minibatch_size": 2, "advantage": advantage},
            "statistics_stabilization": {"collect_steps": 16},
        }
    )
    schema = observation_schema(config.observation)
    envs = tree["rollout"]["num_envs"]
    learner = Learner(
        config, schema, tree["rollout"]["num_replicas"], FanOut([]), shards=Shards(envs)
    )
    learner.load_state_dict(tree)
    steps, updates = learner.global_step, learner.updates
    assert steps == tree["learner"]["counters"]["global_step"]
    for name, value in learner.policy.network.state_dict().items():
        assert torch.equal(value, tree["learner"]["policy"]["network"][name])
    replicas = np.ones((envs, learner.num_replicas, len(schema.replica)))
    seen = Observation(
        replicas, np.ones((envs, len(schema.context))), np.ones((envs, len(schema.telemetry)))
    )
    for _ in range(20):
        asked, prices = learner.asks(), np.arange(float(learner.num_replicas))
        costs = None if asked is None else np.where(asked[:, None], prices, np.nan)
        learner.decide(seen, np.zeros(envs), np.zeros(envs, dtype=bool), costs)
    assert learner.global_step == steps + 20 * envs
    assert learner.updates > updates
