"""Programs in processes of their own, and what the operating system tells of each."""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig


@dataclass(frozen=True)
class Ended:
    """Wall-clock time, peak of resident memory, and all that was printed."""

    seconds: float
    peak_rss_mb: float
    output: str


def run_program(command: list[str], folder: Path, **environment: str) -> Ended:
    """Run a program in a folder to its end.

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
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    text = log.read_text(encoding="utf-8")
    if status != 0:
        raise UserError(f"{' '.join(command)} failed:\n{text[-2000:]}")
    return Ended(seconds, usage.ru_maxrss * 1024 / 1e6, text)


def train(
    settings: Mapping[str, Mapping[str, Any]],
    look: Callable[[Path], object] = lambda folder: None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Ended, float]:
    """Run ``vidur-ppo train`` without warm start and comparison.

    Args:
        look: is shown the folder that the training ran in before it is removed.

    Returns:
        How it ended, and its decisions per second of wall-clock time, updates, curves and
        checkpoints included, behind the updates that fit the critic alone; 0 without any.
    """
    tree = {**settings, "warmstart": {"enabled": False}, "evaluation": {"enabled": False}}
    fitting = TrainingConfig.model_validate(tree).ppo_config.critic_warmup_updates
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(tree), encoding="utf-8")
        program = [sys.executable, "-m", "vidur_ext.cli", "train", "--config", "config.json"]
        ended = run_program(
            [*program, "--resume", "never", "--quiet"], folder, **(environment or {})
        )
        [metrics] = folder.glob("outputs/*/run_*/metrics/training.csv")
        with metrics.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))[fitting:]
        look(folder)
    rates = [float(text) for row in rows if (text := row["Speed/DecisionsPerSecond"])]
    return ended, statistics.harmonic_mean(rates) if rates else 0.0
