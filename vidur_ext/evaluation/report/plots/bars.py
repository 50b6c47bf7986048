"""A bar per scheduler: latencies and objectives with 95 % intervals, and shares of replicas."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.metrics import SLO_METRIC, Latency
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.plots.looks import (
    GRID_COLOR,
    WIDTH_IN,
    add_legend,
    bar_look,
    figure_height,
    label_rows,
)

_CUT_AT_MEDIANS = 4.0
"""Bars longer than this many medians are cut, or a control would flatten all others."""


_SHARES_NAMED = 8
_OUTLINED_REPLICAS = 64


def latency_bars(comparison: Comparison, latency: Latency, title: str) -> Figure:
    """Return mean and p99 of one latency side by side."""
    figure = Figure(figsize=(WIDTH_IN, figure_height(comparison)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, statistic in zip(axes, ("mean", "p99"), strict=True):
        _draw_bars(axis, comparison, f"{latency}_{statistic}_s")
        axis.set_title(f"{title}, {statistic}")
        axis.set_xlabel("seconds, less is better")
    label_rows(axes[0], comparison.schedulers)
    add_legend(figure, comparison)
    return figure


def slo_bars(comparison: Comparison) -> Figure:
    """Return the share of requests that met both objectives."""
    figure = Figure(figsize=(WIDTH_IN, figure_height(comparison)), layout="constrained")
    axis = figure.subplots()
    _draw_bars(axis, comparison, SLO_METRIC)
    label_rows(axis, comparison.schedulers)
    objectives = comparison.objectives
    axis.set_title(
        f"Requests with TTFT ≤ {wording.number(objectives.ttft_s)} s "
        f"and TBT ≤ {wording.number(1000 * objectives.tbt_s)} ms"
    )
    axis.set_xlabel("share of requests, more is better")
    axis.set_xticks(np.linspace(0, 1, 6), [f"{share} %" for share in range(0, 101, 20)])
    add_legend(figure, comparison)
    return figure


def replica_shares(comparison: Comparison) -> Figure:
    """Return how the requests of each scheduler were spread over the replicas."""
    figure = Figure(figsize=(WIDTH_IN, figure_height(comparison)), layout="constrained")
    axis = figure.subplots()
    replicas = comparison.num_replicas
    colors = _replica_colors(comparison)
    for row, one in enumerate(comparison.schedulers):
        shares = np.array(one.pooled.replica_shares)
        starts = np.cumsum(shares) - shares
        axis.barh(
            np.full(replicas, row), shares, left=starts, color=colors, height=0.72,
            edgecolor="white", linewidth=1 if replicas <= _OUTLINED_REPLICAS else 0,
        )  # fmt: skip
        if replicas <= _SHARES_NAMED:
            for start, share in zip(starts, shares, strict=True):
                if share >= 0.04:
                    axis.text(
                        start + share / 2, row, f"{100 * share:.0f} %",
                        ha="center", va="center", fontsize=10,
                    )  # fmt: skip
        axis.text(1.01, row, wording.number(one.pooled.imbalance), va="center", fontsize=11)
    axis.set_xlim(0, 1.1)
    axis.set_xticks(np.linspace(0, 1, 6), [f"{share} %" for share in range(0, 101, 20)])
    axis.set_xlabel(
        f"share of requests, replica 0 (left) to {replicas - 1} (right); "
        "at the end: imbalance, 1 is even"
    )
    axis.set_title("Requests per replica")
    if comparison.mixed:
        kinds = dict(zip(comparison.devices, colors, strict=True))
        handles = [Patch(facecolor=color, label=kind) for kind, color in kinds.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    label_rows(axis, comparison.schedulers)
    return figure


def _replica_colors(comparison: Comparison) -> NDArray[np.float64]:
    """Return [R, 4]: a color per replica, or of a mixed cluster one per GPU."""
    if comparison.mixed:
        kinds = list(dict.fromkeys(comparison.devices))
        places = [kinds.index(device) / (len(kinds) - 1) for device in comparison.devices]
    else:
        replicas = comparison.num_replicas
        places = [replica / max(replicas - 1, 1) for replica in range(replicas)]
    colors: NDArray[np.float64] = colormaps["cividis"](0.5 + 0.5 * np.array(places))
    return colors


def _draw_bars(axis: Axes, comparison: Comparison, metric: str) -> None:
    limit = _axis_limit(comparison, metric)
    for row, one in enumerate(comparison.schedulers):
        value, interval = one.pooled[metric], one.intervals[metric]
        if value is None:
            axis.text(0.01 * limit, row, wording.NOTHING, va="center")
            continue
        look = bar_look(one, comparison)
        cut = value > limit
        axis.barh(
            row, min(value, limit), height=0.72,
            color=look.color, hatch=look.hatch, edgecolor="#444444", linewidth=0.6,
        )  # fmt: skip
        end = min(value, limit)
        if interval is not None and not cut:
            axis.hlines(row, interval.low, min(interval.high, limit), color="black", linewidth=1.6)
            end = max(end, min(interval.high, limit))
        text = wording.in_unit(metric, value) + (" ▸ (cut)" if cut else "")
        axis.text(end + 0.015 * limit, row, text, va="center", fontsize=11)
    axis.set_xlim(0, 1.22 * limit)
    axis.grid(axis="x", color=GRID_COLOR)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _axis_limit(comparison: Comparison, metric: str) -> float:
    """Return the longest bar, interval included, to be drawn whole."""
    if metric == SLO_METRIC:
        return 1.0
    bars = []
    for one in comparison.schedulers:
        value, interval = one.pooled[metric], one.intervals[metric]
        if value is not None:
            bars.append((value, value if interval is None else max(value, interval.high)))
    if not bars or max(bars)[0] == 0:
        return 1.0
    cut = _CUT_AT_MEDIANS * float(np.median([value for value, _ in bars]))
    return 1.05 * max(end for value, end in bars if value <= cut)
