"""What saving costs: the stall of a save, a durable publication, a verified load, and the whole.

The state is that of a learner with the default network, a full rollout and a log of actions. The
folder is below ``--folder``: a temporary folder in memory would measure nothing. The slowdown of a
training is measured against one that saves nothing, turn by turn in one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import run_benchmark_with_options

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.saver import Saver
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.observation import Observation
from ppo_scheduler.ppo.learner import Learner
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.train import Job, run_training


class _NoMetrics:
    def record(self, global_step: int, scalars: object) -> None:
        """Nothing is watched here."""


def _learner(config: TrainingConfig) -> Learner:
    """Return a learner of the default network that has updated once and filled half a rollout."""
    schema = observation_schema(config.observation)
    replicas = config.cluster.num_replicas
    learner = Learner(config, schema, replicas, _NoMetrics())
    learner.updater.keep_reference()
    rng = np.random.default_rng(0)
    steps = config.statistics_stabilization.collect_steps + int(1.5 * config.ppo_config.rollout_len)
    for _ in range(steps):
        observation = Observation(
            rng.normal(size=(1, replicas, len(schema.replica))),
            rng.normal(size=(1, len(schema.context))),
            np.abs(rng.normal(size=(1, len(schema.telemetry)))),
        )
        asked, prices = learner.asks(), rng.random((1, replicas))
        costs = None if asked is None else np.where(asked[:, None], prices, np.nan)
        learner.decide(observation, rng.normal(size=1), np.array([False]), costs)
    for parameter in learner.policy.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.updater.optimizer.step()
    return learner


def _description(step: int) -> Description:
    return Description(
        ppo_step=step,
        global_step=step,
        reason="interval",
        run_dir="benchmark",
        config_digest="0" * 64,
        num_replicas=4,
        val_score=None,
        versions={"torch": str(torch.__version__)},
        facts={"episode": 0, "requests_done": step},
        settings=TrainingConfig().settings(),
    )


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def _costs_of_one(folder: Path, repetitions: int) -> dict[str, float]:
    learner = _learner(TrainingConfig())
    stall, publish, load = [], [], []
    store = CheckpointStore(CheckpointingSection(checkpoint_dir=str(folder)))
    size = store.publish(learner.state_dict(), _description(0)).stat().st_size
    with Saver(store, background=True) as saver:
        for step in range(1, 2 * repetitions, 2):
            said, later = _description(step), _description(step + 1)
            stall.append(_ms(lambda said=said: saver.save(learner.state_dict, said)))  # type: ignore[misc]
            saver.wait()
            publish.append(_ms(lambda said=later: saver.save_now(learner.state_dict, said)))  # type: ignore[misc]
            load.append(_ms(lambda: store.load("latest")))
    store.close()
    return {
        "stall_ms": statistics.median(stall),
        "stall_max_ms": max(stall),
        "publish_ms": statistics.median(publish),
        "publish_max_ms": max(publish),
        "load_ms": statistics.median(load),
        "size_mb": size / 1e6,
    }


def _training_seconds(folder: Path, requests: int, **saving: object) -> float:
    """Return how long the default training takes over so many requests."""
    tree = {
        "training": {"total_requests": requests},
        "checkpointing": {"checkpoint_dir": str(folder / "checkpoints"), **saving},
        "monitoring": {"progress_bar": False, "log_level": "error"},
    }
    config = TrainingConfig.model_validate(tree)
    started = time.perf_counter()
    run_training(Job(config, run_dir=str(folder / "run")))
    return time.perf_counter() - started


def _slowdown(folder: Path, requests: int, pairs: int) -> dict[str, float]:
    """Return the median over pairs of what saving adds to a training [%]."""
    kinds: dict[str, dict[str, object]] = {
        "slowdown_percent": {"save_async": True},
        "slowdown_sync_percent": {"save_async": False},
    }
    added: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(pairs):
        place = folder / f"pair_{number}"
        off = _training_seconds(place / "off", requests, enable_checkpoints=False)
        for name, saving in kinds.items():
            on = _training_seconds(place / name, requests, **saving)
            added[name].append(100.0 * (on / off - 1.0))
    return {name: statistics.median(values) for name, values in added.items()}


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return medians [ms], the size of a checkpoint, and what saving adds to a training."""
    torch.set_num_threads(1)
    repetitions, requests, pairs = (20, 4000, 1) if arguments.quick else (200, 200_000, 7)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        one = _costs_of_one(Path(folder) / "one", repetitions)
        return {**one, **_slowdown(Path(folder), requests, pairs)}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs"), help="measure on this folder's disk"
    )


if __name__ == "__main__":
    run_benchmark_with_options("Cost of checkpoints", _add_options, measure)
