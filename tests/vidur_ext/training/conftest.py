"""Small trainings through the simulator's flags, and what they leave behind."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ppo_scheduler.checkpoint.store import CheckpointInfo, CheckpointStore
from ppo_scheduler.config.training_config import TrainingConfig
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.training.session import TrainingSession
from vidur_ext.training.simulated_training import run_training

_CLOCK_COLUMNS = ("Speed/DecisionsPerSecond", "Speed/UpdateSeconds", "Speed/CheckpointSeconds")


@dataclass(frozen=True)
class Trained:
    """A run folder and the checkpoints of its config."""

    run: Path
    store: CheckpointStore

    @property
    def infos(self) -> list[CheckpointInfo]:
        return self.store.list()

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
    def weights(self) -> dict[str, torch.Tensor]:
        state = torch.load(self.run / "policy.pt", weights_only=True)
        weights: dict[str, torch.Tensor] = state["policy"]["network"]
        return weights

    def has_weights_of(self, other: Trained) -> bool:
        theirs = other.weights
        return all(torch.equal(value, theirs[name]) for name, value in self.weights.items())


Train = Callable[..., Trained]


@pytest.fixture
def train(tmp_path) -> Train:
    """Train a config in a folder, as ``python -m vidur_ext.main`` does."""

    def run(config: TrainingConfig, name: str = "run", **arguments: Any) -> Trained:
        folder = tmp_path / name
        flags = config.to_cli_flags(
            "ppo_modular",
            metrics_dir=str(tmp_path / "vidur"),
            **{"run_dir": str(folder), **arguments},
        )
        where = run_training(parse_simulation_config(flags)).path
        return Trained(where, CheckpointStore(config.checkpointing))

    return run


@pytest.fixture
def left_by(tmp_path):
    """Return what a training left that did not end by itself."""

    def trained(config: TrainingConfig, name: str = "run") -> Trained:
        return Trained(tmp_path / name, CheckpointStore(config.checkpointing))

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
