"""What learning costs: a PPO training simulation beside a round-robin one, same requests.

Both runs are timed from the built simulator to its end, in turn, in one process. The PPO run is a
whole training: observations, decisions, updates, checkpoints, TensorBoard and CSV.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness import run_benchmark

from ppo_scheduler.seeding import Purpose
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.training.train import Job, run_training
from vidur_ext.vidur.simulation import simulation_of
from vidur_ext.workload.run_workloads import workload_stream

_REQUESTS = 2048


def _config(root: Path, requests: int) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "training": {"total_requests": requests, "output_root": str(root)},
            "checkpointing": {
                "checkpoint_dir": str(root / "checkpoints"),
                "validation_freq": None,
            },
            "monitoring": {"progress_bar": False, "log_level": "warning"},
            "simulation": {"engine": "vidur"},
            "parallel_training": {"num_envs": 1},
            "ppo_config": {"rollout_len": 512, "minibatch_size": 256, "advantage": "gae"},
            "warmstart": {"enabled": False},
            "statistics_stabilization": {"collect_steps": 256},
        }
    )


def _round_robin_seconds(config: TrainingConfig) -> float:
    stream = workload_stream(config, Purpose.WORKLOAD)
    table = stream.window(0, config.training.total_requests)
    simulation = simulation_of(config, "round_robin", table)
    started = time.perf_counter()
    simulation.run()
    return time.perf_counter() - started


def _training_seconds(config: TrainingConfig, root: Path, attempt: int) -> float:
    started = time.perf_counter()
    run_training(Job(config, run_dir=str(root / f"run_{attempt}")))
    return time.perf_counter() - started


def measure(quick: bool) -> dict[str, float]:
    """Return medians [s] of both runs and the median of the ratios of neighbouring runs."""
    logging.getLogger("vidur").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    requests = _REQUESTS // 4 if quick else _REQUESTS
    repetitions = 3 if quick else 7
    baseline, training = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = _config(root, requests)
        _training_seconds(config, root, 0)
        for attempt in range(1, repetitions + 1):
            baseline.append(_round_robin_seconds(config))
            training.append(_training_seconds(config, root, attempt))
    ratios = [ppo / plain for ppo, plain in zip(training, baseline, strict=True)]
    return {
        "ratio_vs_round_robin": statistics.median(ratios),
        "round_robin_s": statistics.median(baseline),
        "ppo_training_s": statistics.median(training),
        "requests": float(requests),
        "added_us_per_decision": 1e6
        * (statistics.median(training) - statistics.median(baseline))
        / requests,
    }


if __name__ == "__main__":
    run_benchmark("Cost of a PPO training simulation against a round-robin one", measure)
