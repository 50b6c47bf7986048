"""What saving costs: publication and verified loading of a 1 MB tree, on the disk of the outputs.

A publication includes three syncs of the folder and two of files, so the disk decides. The folder
is below ``--folder``: a temporary folder in memory would measure nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness import run_benchmark_with_options

from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.checkpoint.tree import dump
from ppo_scheduler.config.run_sections import CheckpointingSection

_TENSORS = 50
_NUMBERS = 5_000  # per tensor; float32, so that all of them are 1 MB


def _tree() -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weights": {
            f"layer_{i}": torch.randn(_NUMBERS, generator=generator) for i in range(_TENSORS)
        },
        "counters": {"ppo_step": 0, "global_step": 0},
    }


def _publish(store: CheckpointStore, tree: dict[str, object], step: int) -> Path:
    return store.publish(
        tree,
        ppo_step=step,
        global_step=step,
        reason="interval",
        run_dir="benchmark",
        config_digest="0" * 64,
        num_replicas=4,
        versions={"torch": str(torch.__version__)},
        facts={},
    )


def _milliseconds(started: float) -> float:
    return 1e3 * (time.perf_counter() - started)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return medians and the slowest publication [ms], and the size of a checkpoint."""
    torch.set_num_threads(1)
    repetitions = 20 if arguments.quick else 200
    tree = _tree()
    publish_ms, load_ms, dump_ms = [], [], []
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        store = CheckpointStore(CheckpointingSection(checkpoint_dir=folder))
        size = _publish(store, tree, 0).stat().st_size
        for step in range(1, repetitions + 1):
            started = time.perf_counter()
            dump(tree)
            dump_ms.append(_milliseconds(started))
            started = time.perf_counter()
            _publish(store, tree, step)
            publish_ms.append(_milliseconds(started))
            started = time.perf_counter()
            store.load("latest")
            load_ms.append(_milliseconds(started))
        store.close()
    return {
        "publish_ms": statistics.median(publish_ms),
        "publish_max_ms": max(publish_ms),
        "dump_ms": statistics.median(dump_ms),
        "load_ms": statistics.median(load_ms),
        "size_mb": size / 1e6,
    }


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs"), help="measure on this folder's disk"
    )


if __name__ == "__main__":
    run_benchmark_with_options("Cost of a checkpoint of 1 MB", _add_options, measure)
