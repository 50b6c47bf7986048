"""Trainings by one process and by several, side by side.

Each is ``vidur-ppo train`` in a process of its own, with checkpoints, validation, curves and log,
without warm start and comparison; ``--num-processes`` names how many train together. They take
turns, and the speed is that of all updates behind the critic's warm-up, by the wall clock.
``same_weights`` is 1 if all of them have ended with the same bits. ``alone_2`` is what the machine
could do at best: two trainings at once that know nothing of each other, both speeds together.
``--plot FILE`` draws the speeds.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from command import train
from harness import run_benchmark_with_options
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.report.plots.looks import BASELINE_COLOR, LEARNED_COLOR


def _settings(decisions: int, processes: int) -> dict[str, dict[str, object]]:
    return {
        "training": {"total_requests": decisions},
        "parallel_training": {"num_processes": processes},
    }


def _train(decisions: int, processes: int) -> tuple[float, str]:
    """Return decisions per second, and a digest of the policy."""
    policies: list[bytes] = []
    _, rate = train(
        _settings(decisions, processes),
        look=lambda folder: policies.extend(p.read_bytes() for p in folder.glob("**/policy.pt")),
    )
    [policy] = policies
    return rate, hashlib.sha256(policy).hexdigest()


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return speeds, what they are to one process's, and whether all have made the same."""
    decisions, repetitions = (160_000, 1) if arguments.quick else (800_000, 3)
    counts = sorted({1, *arguments.processes})
    rates: dict[int, list[float]] = {count: [] for count in counts}
    at_best: list[float] = []
    digests = set()
    _train(TrainingConfig().parallel_training.num_envs, 1)
    for _ in range(repetitions):
        for count in counts:
            rate, digest = _train(decisions, count)
            rates[count].append(rate)
            digests.add(digest)
        with ThreadPoolExecutor(2) as pool:
            at_best.append(sum(rate for rate, _ in pool.map(_train, [decisions] * 2, [1, 1])))
    alone = rates[1]

    def ratio(faster: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(faster, alone, strict=True))

    figures = {
        **{f"decisions_per_second_{n}": statistics.median(rates[n]) for n in counts},
        **{f"speedup_{n}": ratio(rates[n]) for n in counts if n > 1},
        "alone_2": ratio(at_best),
        "same_weights": float(len(digests) == 1),
    }
    if arguments.plot is not None:
        _draw({n: statistics.median(rates[n]) for n in counts}, arguments.plot)
    return figures


def _draw(speeds: dict[int, float], path: Path) -> None:
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    counts = list(speeds)
    axes.plot(
        counts, [n * speeds[1] for n in counts], "--", color=BASELINE_COLOR, label="n times one"
    )
    axes.plot(counts, list(speeds.values()), "o-", color=LEARNED_COLOR, label="measured")
    axes.set_xlabel("processes")
    axes.set_ylabel("decisions per second")
    axes.set_xticks(counts)
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=[2],
        metavar="N",
        help="how many train together (default 2); what the machine has cores for",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the speeds to FILE")
    parser.set_defaults(warm_up=1600)


if __name__ == "__main__":
    run_benchmark_with_options("Processes", _add_options, measure)
