"""How full the replicas were over one workload: under the policy, and under the best heuristic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.report.plots.looks import WIDTH_IN, line_looks, open_axis
from vidur_ext.evaluation.run_result import RunResult

_INSTANTS = 480
_ROW_IN = 0.34
_MOST_IN = 3.6
"""Height of one replica's row, and of all of them at most."""

_NAMED = 8
"""So many replicas have a name at the axis each; of more, about as many."""

Outstanding = NDArray[np.int64]
"""Requests that are waiting or running [R, T]: per replica, at each of T instants."""


def timelines(
    comparison: Comparison, learned: SchedulerComparison, runs: Sequence[RunResult]
) -> Figure:
    """Return the outstanding requests of every replica over time, on the first held-out workload.

    Above, a map for the policy and one for the best heuristic, or without one for the baseline;
    below, the range of all replicas, and the median, of both.
    """
    rival = comparison[comparison.best_heuristic or comparison.baseline]
    seed = comparison.workloads[0].seed
    shown = [
        (one, next(run for run in runs if (run.scheduler, run.seed) == (one.name, seed)))
        for one in (learned, rival)
    ]
    end = max(float(run.completed_at.max()) for _, run in shown)
    begin = float(shown[0][1].arrived_at[0])
    at = np.linspace(begin, end, _INSTANTS, dtype=np.float64)
    counts = {one.name: outstanding(run, at) for one, run in shown}
    height = min(_ROW_IN * comparison.num_replicas, _MOST_IN)
    figure = Figure(figsize=(WIDTH_IN, 2 * height + 4.6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[height, height, 2.4])
    most = max(int(one.max()) for one in counts.values())
    for axis, (one, _) in zip(axes, shown, strict=False):
        image = _draw_map(axis, comparison, counts[one.name], at, most)
        axis.set_title(f"{one.marked_name}: requests waiting or running on each replica")
    figure.colorbar(image, ax=list(axes[:2]), label="requests", pad=0.01, aspect=30)
    _draw_ranges(axes[2], comparison, counts, at)
    return figure


def outstanding(run: RunResult, at: NDArray[np.float64]) -> Outstanding:
    """Return how many requests each replica had, waiting or running, at the instants ``at`` [s]."""
    return np.stack(
        [
            np.searchsorted(run.arrived_at[mine], at, side="right")
            - np.searchsorted(np.sort(run.completed_at[mine]), at, side="right")
            for mine in (run.replica == replica for replica in range(run.num_replicas))
        ]
    )


def _draw_map(
    axis: Axes, comparison: Comparison, counts: Outstanding, at: NDArray[np.float64], most: int
) -> AxesImage:
    replicas = len(counts)
    image = axis.imshow(
        counts, aspect="auto", cmap="cividis", interpolation="nearest", vmin=0, vmax=max(most, 1),
        extent=(at[0], at[-1], replicas - 0.5, -0.5),
    )  # fmt: skip
    named = range(0, replicas, -(-replicas // _NAMED))
    axis.set_yticks(list(named), [comparison.replica_name(replica) for replica in named])
    return image


def _draw_ranges(
    axis: Axes,
    comparison: Comparison,
    counts: dict[str, Outstanding],
    at: NDArray[np.float64],
) -> None:
    """Draw the policy as a band and the rival as three lines: two bands would hide each other."""
    looks = line_looks(comparison)
    for name, of_each in counts.items():
        color, learned = looks[name].color, comparison[name].learned
        least, middle, most = of_each.min(axis=0), np.median(of_each, axis=0), of_each.max(axis=0)
        if learned:
            axis.fill_between(at, least, most, color=color, alpha=0.25, linewidth=0)
        else:
            axis.plot(at, least, at, most, color=color, linewidth=1.2, linestyle="dashed")
        axis.plot(
            at, middle, color=color, linewidth=2, linestyle="solid" if learned else "dashed",
            label=name,
        )  # fmt: skip
    axis.set_title("From the emptiest replica to the fullest, and the median")
    axis.set_ylabel("requests")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("time [s]")
    axis.legend(loc="upper left", frameon=False, ncols=2)
    open_axis(axis)
