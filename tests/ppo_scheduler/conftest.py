"""A toy routing task: the reward is minus the first feature of the chosen replica."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from ppo_scheduler.config.learner_sections import LearnerConfig
from ppo_scheduler.observation import TELEMETRY, Observation, ObservationSchema
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.ppo.learner import Learner

torch.set_num_threads(1)

TOY_SCHEMA = ObservationSchema(
    replica=("load", "noise"), context=("size",), telemetry=(*TELEMETRY, "latency")
)


class RecordingSink:
    """Keeps every record."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, float]]] = []

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        self.records.append((global_step, dict(scalars)))

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""

    def series(self, name: str) -> list[float]:
        return [scalars[name] for _, scalars in self.records if name in scalars]


class ToyTask:
    """B environments of R replicas whose features are drawn anew at every step."""

    def __init__(self, num_envs: int = 1, num_replicas: int = 3, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.num_envs, self.num_replicas = num_envs, num_replicas
        self.episode_steps = 50
        self.steps = 0
        self.reward = np.zeros(num_envs)
        self.done = np.zeros(num_envs, dtype=bool)
        self.loads = self.rng.random((num_envs, num_replicas))

    def observation(self) -> Observation:
        noise = self.rng.random((self.num_envs, self.num_replicas))
        telemetry = np.column_stack(
            [
                np.full(self.num_envs, 10.0),
                np.full(self.num_envs, 5.0),
                np.ones(self.num_envs),
                np.ones(self.num_envs),
                self.reward,
            ]
        )
        return Observation(
            np.stack([self.loads, noise], axis=-1), np.ones((self.num_envs, 1)), telemetry
        )

    def step(self, learner: Learner) -> np.ndarray:
        """Let the learner decide once; return its actions."""
        observation, asked = self.observation(), learner.asks()
        costs = None if asked is None else np.where(asked[:, None], self.loads, np.nan)
        action = learner.decide(observation, self.reward, self.done, costs)
        self.reward = -self.loads[np.arange(self.num_envs), action]
        self.steps += 1
        self.done = np.full(self.num_envs, self.steps % self.episode_steps == 0)
        self.loads = self.rng.random((self.num_envs, self.num_replicas))
        return action


def learner_config(**groups: dict[str, object]) -> LearnerConfig:
    """Return a small config; ``groups`` override keys per group."""
    base: dict[str, dict[str, object]] = {
        "training": {"total_requests": 4096},
        "actor_critic_architecture": {"hidden_size": 16, "attention_heads": 2},
        "ppo_config": {
            "rollout_len": 64,
            "minibatch_size": 32,
            "learning_rate": 3e-3,
            "critic_warmup_updates": 1,
            "advantage": "gae",
            "counterfactual_share": 0.25,
        },
        # Steps of a second: what follows counts half.
        "reward_config": {"horizon_s": 1.0 / math.log(2.0)},
        "statistics_stabilization": {"collect_steps": 32},
    }
    for group, keys in groups.items():
        base[group] = {**base.get(group, {}), **keys}
    return LearnerConfig.model_validate(base)


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def make_learner(sink):
    def make(
        num_envs: int = 1,
        num_replicas: int = 3,
        on_event: Callable[[str], None] = lambda event: None,
        **groups: dict[str, object],
    ) -> Learner:
        config = learner_config(**groups)
        return Learner(
            config, TOY_SCHEMA, num_replicas, sink, shards=Shards(num_envs), on_event=on_event
        )

    return make


@pytest.fixture
def make_task():
    return ToyTask


@pytest.fixture
def toy_schema() -> ObservationSchema:
    return TOY_SCHEMA


@pytest.fixture
def make_config():
    return learner_config
