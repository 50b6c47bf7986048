"""Small simulations and trainings, real in every part, and what they leave behind."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppo_scheduler.checkpoint.store import CheckpointInfo, CheckpointStore
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.training.session import TrainingSession
from vidur_ext.training.train import Job, run_training
from vidur_ext.vidur.simulation import VidurSimulation, simulation_of
from vidur_ext.workload.request_table import RequestTable

torch.set_num_threads(1)


WITHOUT_PRICES: dict[str, dict[str, object]] = {
    "ppo_config": {"advantage": "gae"},
    "warmstart": {"method": "imitation"},
}
"""What a config says where choices cannot be priced: on Vidur."""


def small_config(root: Path, **groups: dict[str, object]) -> TrainingConfig:
    """Return a config of a tiny training below ``root``; ``groups`` override keys.

    With the engine "vidur" it says ``WITHOUT_PRICES``, which is all that Vidur can.
    """
    base: dict[str, dict[str, object]] = {
        "training": {
            "total_requests": 240,
            "episode_requests": 100,
            "output_root": str(root / "outputs"),
        },
        "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
        "ppo_config": {
            "rollout_len": 32,
            "minibatch_size": 8,
            "critic_warmup_updates": 1,
            "counterfactual_share": 0.25,
        },
        "statistics_stabilization": {"collect_steps": 16},
        "checkpointing": {
            "checkpoint_dir": str(root / "checkpoints"),
            "checkpoint_interval": 1000,
            "validation_seeds": 2,
            "validation_requests": 32,
        },
        "monitoring": {"progress_bar": False, "log_level": "warning"},
        "cluster": {"num_replicas": 3},
        "warmstart": {
            "demo_requests": 64,
            "epochs": 2,
            "load_levels": [1.0],
            "rounds": 2,
            "labels_per_round": 32,
            "steps_per_round": 5,
        },
        "terminal_value": {"decisions": 16, "steps": 5},
        "kl_regularization": {"final_coef": 0.02},
        "parallel_training": {"num_envs": 1, "num_workers": 1},
        "evaluation": {"num_seeds": 1, "requests": 64, "bootstrap_samples": 20},
    }
    on_vidur = groups.get("simulation", {}).get("engine") == "vidur"
    for changes in (WITHOUT_PRICES if on_vidur else {}, groups):
        for group, keys in changes.items():
            base[group] = {**base.get(group, {}), **keys}
    return TrainingConfig.model_validate(
        {
            group: {name: tuple(v) if isinstance(v, list) else v for name, v in keys.items()}
            for group, keys in base.items()
        }
    )


def requests(count: int = 60, seed: int = 0, qps: float = 20.0) -> RequestTable:
    """Return a small mixed workload."""
    rng = np.random.default_rng(seed)
    return RequestTable(
        np.cumsum(rng.exponential(1.0 / qps, count)),
        rng.integers(10, 1500, count),
        rng.integers(1, 60, count),
    )


@pytest.fixture
def make_config(tmp_path):
    def make(**groups: dict[str, object]) -> TrainingConfig:
        return small_config(tmp_path, **groups)

    return make


@pytest.fixture
def make_requests():
    return requests


@pytest.fixture
def build_simulation():
    """Build (not run) a simulation of a config under a scheduler."""

    def build(config: TrainingConfig, scheduler: str, table: RequestTable) -> VidurSimulation:
        return simulation_of(config, scheduler, table)

    return build


_CLOCK_COLUMNS = ("Speed/DecisionsPerSecond", "Speed/UpdateSeconds", "Speed/CheckpointSeconds")


@dataclass(frozen=True)
class Trained:
    """A run folder and the checkpoints of its config."""

    run: Path
    store: CheckpointStore
    weights: dict[str, dict[str, torch.Tensor]]
    """Of the policy that was "exported" and, where it was saved, of the "last" one."""

    @property
    def infos(self) -> list[CheckpointInfo]:
        return self.store.checkpoints()

    @property
    def steps(self) -> list[int]:
        return [info.manifest.ppo_step for info in self.infos]

    @property
    def reasons(self) -> list[str]:
        return [info.manifest.reason for info in self.infos]

    @property
    def newest(self) -> CheckpointInfo:
        return self.infos[-1]

    @property
    def log(self) -> str:
        return (self.run / "ppo_training.log").read_text(encoding="utf-8")

    @property
    def rows(self) -> list[dict[str, str]]:
        """The CSV's rows without what the clock decides."""
        with (self.run / "metrics" / "training.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [{n: v for n, v in row.items() if n not in _CLOCK_COLUMNS} for row in rows]

    @property
    def validation(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.run / "validation.json").read_text())
        return content

    def has_weights_of(self, other: Trained, *, which: tuple[str, ...] = ()) -> bool:
        """Return whether the policies (all, or those of ``which``) have equal weights."""
        assert self.weights.keys() == other.weights.keys()
        return all(
            torch.equal(weight, other.weights[policy][name])
            for policy in which or self.weights
            for name, weight in self.weights[policy].items()
        )


def weights_left(run: Path, store: CheckpointStore) -> dict[str, dict[str, torch.Tensor]]:
    policies = {"exported": torch.load(run / "policy.pt", weights_only=True)["policy"]}
    if store.checkpoints():
        policies["last"] = store.load("latest").tree["learner"]["policy"]
    return {who: policy["network"] for who, policy in policies.items()}


Train = Callable[..., Trained]


@pytest.fixture
def train(tmp_path) -> Train:
    """Train a config in a folder."""

    def run(config: TrainingConfig, name: str = "run", **arguments: Any) -> Trained:
        folder = tmp_path / name
        where = run_training(Job(config, **{"run_dir": str(folder), **arguments})).path
        store = CheckpointStore(config.checkpointing)
        return Trained(where, store, weights_left(where, store))

    return run


@pytest.fixture
def left_by(tmp_path):
    """Return what a training left that did not end by itself."""

    def trained(config: TrainingConfig, name: str = "run") -> Trained:
        return Trained(tmp_path / name, CheckpointStore(config.checkpointing), {})

    return trained


@pytest.fixture
def at_step(monkeypatch):
    """Do something once, right before the session looks around after that PPO step."""

    def arm(step: int, action: Callable[[TrainingSession], object]) -> None:
        original = TrainingSession._after_decision

        def hook(self: TrainingSession) -> None:
            if self.learner.ppo_step == step:
                monkeypatch.setattr(TrainingSession, "_after_decision", original)
                action(self)
            original(self)

        monkeypatch.setattr(TrainingSession, "_after_decision", hook)

    return arm


@pytest.fixture
def stop_at(at_step):
    """Send this process SIGTERM at a PPO step, once."""

    def arm(step: int) -> None:
        at_step(step, lambda session: os.kill(os.getpid(), signal.SIGTERM))

    return arm
