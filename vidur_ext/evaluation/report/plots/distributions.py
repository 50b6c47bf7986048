"""Whole distributions of the latencies, a line per scheduler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.metrics import CountedRun, Latency, RequestLatencies, pool
from vidur_ext.evaluation.report.plots.looks import WIDTH_IN, line_looks, open_axis
from vidur_ext.evaluation.run_result import RunResult

_PANELS: tuple[tuple[Latency, str], ...] = (
    ("e2e", "End-to-end"),
    ("ttft", "Time to first token"),
    ("tbt", "Time between tokens"),
)
_LEFT_OUT = 0.005
"""Share of the smallest latencies beyond the left edge: a few tiny requests waste decades."""


def latency_cdf(comparison: Comparison, runs: Sequence[RunResult]) -> Figure:
    """Return the distribution of each latency over the counted requests, time logarithmic."""
    figure = Figure(figsize=(WIDTH_IN, 6.6), layout="constrained")
    axes = figure.subplots(1, len(_PANELS), sharey=True)
    looks = line_looks(comparison)
    extents: list[list[NDArray[np.float64]]] = [[] for _ in _PANELS]
    for one in comparison.schedulers:
        latencies = _counted(comparison, runs, one.name)
        look = looks[one.name]
        for axis, extent, (latency, _) in zip(axes, extents, _PANELS, strict=True):
            values = latencies[latency]
            ranked = np.sort(values[~np.isnan(values)])
            if not one.control:
                extent.append(ranked[ranked > 0])
            axis.step(
                ranked, np.arange(1, len(ranked) + 1) / max(len(ranked), 1), where="post",
                color=look.color, linewidth=look.width, linestyle=look.dashes, zorder=look.order,
                label=one.marked_name,
            )  # fmt: skip
    for axis, extent, (_, title) in zip(axes, extents, _PANELS, strict=True):
        _dress_cdf(axis, title, np.concatenate([np.empty(0), *extent]))
    axes[0].set_ylabel("share of requests that took at most this long")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _counted(comparison: Comparison, runs: Sequence[RunResult], name: str) -> RequestLatencies:
    return pool(
        [
            CountedRun.of(run, comparison.warmup_fraction, comparison.objectives).latencies
            for run in runs
            if run.scheduler == name
        ]
    )


def _dress_cdf(axis: Axes, title: str, shown: NDArray[np.float64]) -> None:
    """Fit the axis to what is ``shown``; controls may run out of it."""
    axis.set_title(title)
    axis.set_ylim(0, 1.01)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 0.99], ["0", "25 %", "50 %", "75 %", "90 %", "99 %"])
    open_axis(axis)
    if shown.size == 0:
        axis.set_xticks([])
        axis.text(0.5, 0.5, "nothing to measure", ha="center", transform=axis.transAxes)
        return
    axis.set_xscale("log", nonpositive="clip")
    axis.set_xlim(float(np.quantile(shown, _LEFT_OUT)) / 1.1, float(shown.max()) * 1.1)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelsize=10)
    axis.set_xlabel("seconds (log), further left is better")
