"""What is shown while schedulers are compared: how long it takes, and how far it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ppo_scheduler.monitoring.run_log import terminal
from vidur_ext.config.sections import PLANNERS
from vidur_ext.evaluation.metrics import counted_e2e
from vidur_ext.evaluation.run_result import RunResult

_LOG = logging.getLogger("ppo")

Report = Callable[[Sequence[RunResult], int, int], None]
"""Is told all runs of a scheduler, how many schedulers are done, and how many there are."""

_SPEEDS = {"vidur": 450.0, "planner": 2_000.0, "engine": 30_000.0}
"""Simulated requests/s of one core, measured on an idle machine."""
_START_S = 4.0
"""Until worker processes have imported the simulator."""


def about_seconds(schedulers: Sequence[str], engine: str, requests: int, workers: int) -> float:
    """Return about how long a comparison takes where nothing else runs [s].

    Args:
        requests: of all workloads together.
    """
    kinds = [
        "vidur" if engine == "vidur" else "planner" if name in PLANNERS else "engine"
        for name in schedulers
    ]
    spread = [kind for kind in kinds if kind != "engine"]
    at_once = (len(kinds) - len(spread)) * requests / _SPEEDS["engine"]
    in_workers = sum(requests / _SPEEDS[kind] for kind in spread) / workers
    return at_once + (_START_S + in_workers if spread else 0.0)


@contextmanager
def shown_progress(
    done_what: str, schedulers: int, warmup_fraction: float, *, bar: bool
) -> Iterator[Report]:
    """Give what logs one line per scheduler: the mean E2E that the report gives, and the time that
    the rest takes at this speed. On a terminal a bar below it is there from the beginning.

    Args:
        done_what: past participle of what happens to schedulers.
    """
    started = time.monotonic()
    progress = Progress(
        TextColumn(done_what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=terminal(),
        transient=True,
        disable=not bar or not terminal().is_terminal,
    )
    task = progress.add_task("", total=schedulers)

    def report(runs: Sequence[RunResult], done: int, total: int) -> None:
        progress.update(task, completed=done)
        mean = np.concatenate([counted_e2e(run, warmup_fraction) for run in runs]).mean()
        left = timedelta(seconds=round((time.monotonic() - started) / done * (total - done)))
        _LOG.info(
            "%s %d/%d, about %s left: %s, mean E2E %.2f s",
            done_what, done, total, left, runs[0].scheduler, mean,
        )  # fmt: skip

    with progress:
        yield report
