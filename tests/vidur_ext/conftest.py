"""A small training and a small simulation, real in every part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.config.training_config import TrainingConfig
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.simulation.vidur_simulation import VidurSimulation
from vidur_ext.workload.request_table import RequestTable

torch.set_num_threads(1)


def small_config(root: Path, **groups: dict[str, object]) -> TrainingConfig:
    """Return a config of a tiny training below ``root``; ``groups`` override keys."""
    base: dict[str, dict[str, object]] = {
        "training": {
            "total_requests": 240,
            "episode_requests": 100,
            "output_root": str(root / "outputs"),
        },
        "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
        "ppo_config": {"rollout_len": 32, "minibatch_size": 16, "critic_warmup_updates": 1},
        "statistics_stabilization": {"collect_steps": 16},
        "checkpointing": {
            "checkpoint_dir": str(root / "checkpoints"),
            "checkpoint_interval": 1000,
        },
        "monitoring": {"progress_bar": False, "log_level": "warning"},
        "cluster": {"num_replicas": 3},
        "warmstart": {"demo_requests": 64, "epochs": 2, "load_levels": [1.0]},
        "parallel_training": {"num_envs": 1, "num_workers": 1},
        "evaluation": {"num_seeds": 1, "requests": 64, "bootstrap_samples": 20},
    }
    for group, keys in groups.items():
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
def build_simulation(tmp_path):
    """Build (not run) a simulation of a config under a scheduler."""

    def build(config: TrainingConfig, scheduler: str, table: RequestTable) -> VidurSimulation:
        flags = config.to_cli_flags(scheduler, metrics_dir=str(tmp_path / "vidur"))
        return VidurSimulation(parse_simulation_config(flags), table)

    return build
