"""Write the golden checkpoint of the present version: ``python .../checkpoint/golden/write.py``.

Once for each version, when ``SCHEMA_VERSION`` has just been raised; those of earlier versions never
change. They were made likewise by the programs of their time: a small training on real
observations, stopped inside an episode with a half full rollout. From version 6 on it begins with a
policy, so that there is all that a warm start brings.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ppo_scheduler.checkpoint.migrations import SCHEMA_VERSION
from ppo_scheduler.policy.routing_policy import RoutingPolicy, save_policy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.train import Job, run_training
from vidur_ext.warmstart.cost_labels import CostLabels

SETTINGS = {
    "training": {"total_requests": 240, "episode_requests": 40},
    "actor_critic_architecture": {"hidden_size": 8, "encoder_layers": 2, "attention_heads": 2},
    "ppo_config": {"rollout_len": 16, "minibatch_size": 4, "counterfactual_share": 0.25},
    "statistics_stabilization": {"collect_steps": 16},
    "temperature_control": {"enabled": True},
    "advanced_optimization": {"lr_schedule": "linear"},
    "collapse_guard": {"enabled": True},
    "checkpointing": {
        "checkpoint_dir": "checkpoints",
        "checkpoint_interval": 50,
        "validation_freq": 2,
        "validation_seeds": 1,
        "validation_requests": 16,
    },
    "monitoring": {"tensorboard": False, "progress_bar": False, "log_level": "warning"},
    "parallel_training": {"num_envs": 2},
    "kl_regularization": {"final_coef": 0.02},
    "terminal_value": {"enabled": True, "decisions": 64, "horizon": 2, "steps": 10},
    "cluster": {"num_replicas": 2},
    "warmstart": {"labels_per_round": 64},
}
REQUESTS = 100


def main() -> None:
    """Train in a temporary folder, whose name is in no checkpoint, and keep the last one."""
    target = Path(__file__).parent / f"schema_{SCHEMA_VERSION}"
    if target.exists():
        raise SystemExit(f"{target}: exists, and golden checkpoints never change")
    config = TrainingConfig.model_validate(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        here = os.getcwd()
        os.chdir(folder)
        try:
            actor = Path("actor.pt")
            save_policy(_policy(config), actor)
            job = Job(config, run_dir="run", stop_at_requests=REQUESTS, pretrained_actor=actor)
            run_training(job)
        finally:
            os.chdir(here)
        [checkpoint] = Path(folder, "checkpoints").glob("checkpoint_step_*50.pt")
        target.mkdir()
        for file in (checkpoint, checkpoint.with_suffix(".json")):
            shutil.copy(file, target)


def _policy(config: TrainingConfig) -> RoutingPolicy:
    schema = observation_schema(config.observation)
    policy = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    policy.initialize(0)
    policy.collect(CostLabels(config).collect(0, None).observation())
    return policy


if __name__ == "__main__":
    main()
