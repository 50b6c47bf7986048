"""Decisions per second as replicas and environments grow, simulation alone and whole trainings.

The load grows with the cluster: 5.5 requests/s per replica. Simulation means routing in turn on
``RoutingEnvironments``, observation and reward included, in CPU time; training is ``vidur-ppo
train`` in a process of its own, by the wall clock. ``--plot FILE`` draws the figures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from command import train
from harness import run_benchmark_with_options
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ppo_scheduler.seeding import Purpose
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.evaluation.report.plots.looks import BASELINE_COLOR, LEARNED_COLOR
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import workload_stream

_REPLICAS = (4, 8, 16, 32, 64)
_ENVIRONMENTS = (1, 4, 16, 64, 256)
_USUAL_REPLICAS, _USUAL_ENVIRONMENTS = 4, 64
_QPS_PER_REPLICA = 5.5
_ROLLOUT = 7680
_LABELS = {"simulation": "simulation, observation, reward", "training": "whole training"}


def _settings(replicas: int, environments: int, rollouts: int) -> dict[str, dict[str, object]]:
    return {
        "training": {"total_requests": rollouts * _ROLLOUT, "episode_requests": 2000},
        "cluster": {"num_replicas": replicas},
        "workload": {"qps": _QPS_PER_REPLICA * replicas},
        "parallel_training": {"num_envs": environments},
        "ppo_config": {"rollout_len": _ROLLOUT, "minibatch_size": 960},
    }


def _simulate(replicas: int, environments: int, decisions: int) -> float:
    """Return decisions per second of CPU time, the median of three rounds."""
    config = TrainingConfig.model_validate(_settings(replicas, environments, 1))
    stream = workload_stream(config, Purpose.WORKLOAD)
    cluster = engine_cluster(config)
    envs = RoutingEnvironments(cluster, config, environments)
    count = max(200, decisions // environments)
    tables = [stream.window(i * count, count) for i in range(environments)]
    rates = []
    for _ in range(3):
        envs.begin(tables)
        actions = np.arange(environments) % replicas
        started = time.process_time()
        while envs.waiting:
            envs.step(actions)
            actions = (actions + 1) % replicas
        rates.append(count * environments / (time.process_time() - started))
    return statistics.median(rates)


def _measure(replicas: int, environments: int, *, quick: bool) -> dict[str, float]:
    rollouts = 4 if quick else 8 if environments < 16 else 24
    return {
        "simulation": _simulate(replicas, environments, 20_000 if quick else 200_000),
        "training": train(_settings(replicas, environments, rollouts))[1],
    }


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return both speeds for every size, keyed ``replicas_4.training`` and the like."""
    replicas = _REPLICAS[2:3] if arguments.quick else _REPLICAS
    environments = _ENVIRONMENTS[2:3] if arguments.quick else _ENVIRONMENTS
    sizes = {f"replicas_{count}": (count, _USUAL_ENVIRONMENTS) for count in replicas}
    sizes |= {f"environments_{count}": (_USUAL_REPLICAS, count) for count in environments}
    figures = {
        f"{name}.{what}": rate
        for name, size in sizes.items()
        for what, rate in _measure(*size, quick=arguments.quick).items()
    }
    if arguments.plot is not None:
        _draw(figures, arguments.plot)
    return figures


def _draw(figures: dict[str, float], path: Path) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    axes = {
        "replicas": (_REPLICAS, f"replicas ({_USUAL_ENVIRONMENTS} environments)"),
        "environments": (_ENVIRONMENTS, f"environments ({_USUAL_REPLICAS} replicas)"),
    }
    for panel, (kind, (all_counts, label)) in zip(panels, axes.items(), strict=True):
        counts = [count for count in all_counts if f"{kind}_{count}.training" in figures]
        for what, colour in (("simulation", BASELINE_COLOR), ("training", LEARNED_COLOR)):
            rates = [figures[f"{kind}_{count}.{what}"] for count in counts]
            panel.plot(counts, rates, marker="o", linewidth=2.4, color=colour, label=_LABELS[what])
            for count, rate in zip(counts, rates, strict=True):
                panel.annotate(
                    f"{rate / 1e3:,.0f}k",
                    (count, rate),
                    textcoords="offset points",
                    xytext=(0, 8),
                    ha="center",
                    fontsize=9,
                    color=colour,
                )
        panel.set(xscale="log", yscale="log", xlabel=label)
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.margins(y=0.15)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("decisions per second, one core")
    panels[1].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures to a PNG file")


if __name__ == "__main__":
    run_benchmark_with_options("Speed by replicas and environments", _add_options, measure)
