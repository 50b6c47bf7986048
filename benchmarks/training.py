"""Training from the command line with the default settings, and Stable-Baselines3 beside it.

Ours is ``vidur-ppo train`` in a process of its own, with checkpoints, curves and log, without warm
start and comparison: whole decisions from observation to gradient, by the wall clock. The speed is
that of all updates behind the critic's warm-up, taken from ``metrics/training.csv``.

Stable-Baselines3's PPO trains on the same vector environment with the same number of environments,
rollout, minibatch, epochs, discount and clipping (``stable_baselines.py``), without checkpoints and
curves, in a process of its own as well. Both take turns. It is no requirement of the project:

    .venv/bin/pip install --no-deps stable-baselines3==2.9.0 cloudpickle==3.1.2

Peaks of memory are those that the operating system reports of each process. Growth compares a
training of ``--memory-decisions`` with one of a tenth of them. A start-up is a whole process that
makes one decision in each environment, saves and ends; a cold one compiles the engine first.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness import run_benchmark_with_options

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError

_SB3 = Path(__file__).with_name("stable_baselines.py")


@dataclass(frozen=True)
class _Ended:
    seconds: float
    peak_rss_mb: float
    output: str


def _run(command: list[str], folder: Path, **environment: str) -> _Ended:
    """Run a program to its end.

    Raises:
        UserError: it failed.
    """
    log = folder / "output.txt"
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        # Not ``wait``: only ``wait4`` tells the peak of this child alone.
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    text = log.read_text(encoding="utf-8")
    if status != 0:
        raise UserError(f"{' '.join(command)} failed:\n{text[-2000:]}")
    return _Ended(seconds, usage.ru_maxrss * 1024 / 1e6, text)


def _train(decisions: int, **environment: str) -> tuple[_Ended, float]:
    """Train; return how it ended and the decisions per second behind the critic's warm-up."""
    default = TrainingConfig()
    config = {
        "training": {"total_requests": decisions},
        "warmstart": {"enabled": False},
        "evaluation": {"enabled": False},
    }
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        program = [sys.executable, "-m", "vidur_ext.cli", "train", "--config", "config.json"]
        ended = _run([*program, "--resume", "never", "--quiet"], folder, **environment)
        [metrics] = folder.glob("outputs/*/run_*/metrics/training.csv")
        with metrics.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))[default.ppo_config.critic_warmup_updates :]
    rates = [float(text) for row in rows if (text := row["Speed/DecisionsPerSecond"])]
    return ended, statistics.harmonic_mean(rates) if rates else 0.0


def _train_elsewhere(decisions: int) -> tuple[_Ended, float]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        ended = _run([sys.executable, str(_SB3), str(decisions)], Path(name))
    return ended, float(json.loads(ended.output.splitlines()[-1])["decisions_per_second"])


def _side_by_side(decisions: int, repetitions: int) -> dict[str, float]:
    ours, theirs, peaks, other_peaks = [], [], [], []
    for _ in range(repetitions):
        ended, rate = _train(decisions)
        ours.append(rate)
        peaks.append(ended.peak_rss_mb)
        ended, rate = _train_elsewhere(decisions)
        theirs.append(rate)
        other_peaks.append(ended.peak_rss_mb)
    return {
        "decisions_per_second": statistics.median(ours),
        "sb3_decisions_per_second": statistics.median(theirs),
        "ratio_vs_sb3": statistics.median(
            one / other for one, other in zip(ours, theirs, strict=True)
        ),
        "peak_rss_mb": max(peaks),
        "sb3_peak_rss_mb": max(other_peaks),
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
