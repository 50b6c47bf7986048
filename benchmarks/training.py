"""Training from the command line with the default settings, and Stable-Baselines3 beside it.

Ours is ``vidur-ppo train`` in a process of its own, with checkpoints, curves and log, without warm
start and comparison: whole decisions from observation to gradient, by the wall clock. The speed is
that of all updates behind the critic's warm-up, taken from ``metrics/training.csv``.

Stable-Baselines3's PPO trains on the same vector environment with as many environments and as long
rollouts (``stable_baselines.py``), without checkpoints and curves, in a process of its own as well,
and both take turns: ``ratio_vs_sb3`` is to its own minibatch and epochs, 64 and 10,
``ratio_vs_sb3_same_sizes`` to ours. It is no requirement of the project:

    .venv/bin/pip install --no-deps stable-baselines3==2.9.2

Peaks of memory are those that the operating system reports of each process. Growth compares a
training of ``--memory-decisions`` with one of a tenth of them. A start-up is a whole process that
makes one decision in each environment, saves and ends; a cold one compiles the engine first.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path

from command import Ended, run_program, train
from harness import run_benchmark_with_options

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig

_SB3 = Path(__file__).with_name("stable_baselines.py")


def _train(decisions: int, **environment: str) -> tuple[Ended, float]:
    return train({"training": {"total_requests": decisions}}, environment=environment)


def _train_elsewhere(decisions: int, sizes: str) -> tuple[Ended, float]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        ended = run_program([sys.executable, str(_SB3), str(decisions), sizes], Path(name))
    return ended, float(json.loads(ended.output.splitlines()[-1])["decisions_per_second"])


def _side_by_side(decisions: int, repetitions: int) -> dict[str, float]:
    rollout = TrainingConfig().ppo_config.rollout_len
    rates: dict[str, list[float]] = {"": [], "sb3_": [], "sb3_same_sizes_": []}
    peaks = dict.fromkeys(rates, 0.0)
    for _ in range(repetitions):
        for name, (ended, rate) in {
            "": _train(decisions),
            # One rollout to warm up and one to measure: its own sizes are slow.
            "sb3_": _train_elsewhere(2 * rollout, "its"),
            "sb3_same_sizes_": _train_elsewhere(decisions, "ours"),
        }.items():
            rates[name].append(rate)
            peaks[name] = max(peaks[name], ended.peak_rss_mb)

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[""], rates[name], strict=True))

    return {
        **{f"{name}decisions_per_second": statistics.median(r) for name, r in rates.items()},
        "ratio_vs_sb3": ratio("sb3_"),
        "ratio_vs_sb3_same_sizes": ratio("sb3_same_sizes_"),
        **{f"{name}peak_rss_mb": peak for name, peak in peaks.items()},
    }


def _memory(decisions: int) -> dict[str, float]:
    tenth, _ = _train(decisions // 10)
    whole, _ = _train(decisions)
    return {
        "memory_decisions": decisions,
        "memory_first_tenth_mb": tenth.peak_rss_mb,
        "memory_all_mb": whole.peak_rss_mb,
        "memory_growth_percent": 100.0 * (whole.peak_rss_mb / tenth.peak_rss_mb - 1.0),
    }


def _start_up(repetitions: int) -> dict[str, float]:
    once = TrainingConfig().parallel_training.num_envs
    warm = statistics.median(_train(once)[0].seconds for _ in range(repetitions))
    with tempfile.TemporaryDirectory() as cache:
        cold, _ = _train(once, NUMBA_CACHE_DIR=cache)
    return {"startup_seconds_warm": warm, "cold_compile_seconds": cold.seconds - warm}


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return speed, memory and start-up."""
    if importlib.util.find_spec("stable_baselines3") is None:
        raise UserError(
            "stable-baselines3 is not installed; the head of benchmarks/training.py says how to"
        )
    _train(TrainingConfig().parallel_training.num_envs)
    quick = arguments.quick
    decisions = 160_000 if quick else 1_000_000
    figures = _start_up(1 if quick else 3)
    figures |= _side_by_side(decisions, 1 if quick else 3)
    figures |= _memory(400_000 if quick else arguments.memory_decisions)
    return figures


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory-decisions",
        type=int,
        default=10_000_000,
        metavar="N",
        help="length of the training whose memory is measured (default 10,000,000)",
    )


if __name__ == "__main__":
    run_benchmark_with_options("Training", _add_options, measure)
