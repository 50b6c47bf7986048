"""Bars with 95 % intervals: latencies, and the share of requests within the objectives."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.metrics import SLO_METRIC, Latency
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.palette import BarLook, bar_look
from vidur_ext.evaluation.roles import marked

WIDTH_IN = 12.0
"""At 100 dots per inch: 1200 pixels."""

_CUT_AT_MEDIANS = 4.0
"""Bars longer than this many medians are cut, or a control would flatten all others."""


def figure_height(comparison: Comparison) -> float:
    """Return inches that give every scheduler a readable row."""
    return 1.9 + 0.42 * len(comparison.schedulers)


def latency_bars(comparison: Comparison, latency: Latency, title: str) -> Figure:
    """Return mean and p99 of one latency side by side."""
    figure = Figure(figsize=(WIDTH_IN, figure_height(comparison)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, statistic in zip(axes, ("mean", "p99"), strict=True):
        _draw_bars(axis, comparison, f"{latency}_{statistic}_s")
        axis.set_title(f"{title}, {statistic}")
        axis.set_xlabel("seconds, less is better")
    label_rows(axes[0], comparison)
    _add_legend(figure, comparison)
    return figure


def slo_bars(comparison: Comparison) -> Figure:
    """Return the share of requests that met both objectives."""
    figure = Figure(figsize=(WIDTH_IN, figure_height(comparison)), layout="constrained")
    axis = figure.subplots()
    _draw_bars(axis, comparison, SLO_METRIC)
    label_rows(axis, comparison)
    objectives = comparison.objectives
    axis.set_title(
        f"Requests with TTFT ≤ {wording.number(objectives.ttft_s)} s "
        f"and TBT ≤ {wording.number(1000 * objectives.tbt_s)} ms"
    )
    axis.set_xlabel("share of requests, more is better")
    axis.set_xticks(np.linspace(0, 1, 6), [f"{share} %" for share in range(0, 101, 20)])
    _add_legend(figure, comparison)
    return figure


def label_rows(axis: Axes, comparison: Comparison) -> None:
    """Name the schedulers at the rows of ``axis``, best on top, the learned policy in bold."""
    names = [marked(one.name, oracle=one.uses_output_lengths) for one in comparison.schedulers]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    for one, tick in zip(comparison.schedulers, axis.get_yticklabels(), strict=True):
        if one.learned:
            tick.set_fontweight("bold")


def _draw_bars(axis: Axes, comparison: Comparison, metric: str) -> None:
    limit = _axis_limit(comparison, metric)
    for row, one in enumerate(comparison.schedulers):
        value, interval = one.pooled[metric], one.intervals[metric]
        if value is None:
            axis.text(0.01 * limit, row, wording.NOTHING, va="center")
            continue
        look = bar_look(one, comparison.baseline)
        cut = value > limit
        axis.barh(
            row, min(value, limit), height=0.72,
            color=look.colour, hatch=look.hatch, edgecolor="#444444", linewidth=0.6,
        )  # fmt: skip
        end = min(value, limit)
        if interval is not None and not cut:
            axis.hlines(row, interval.low, min(interval.high, limit), color="black", linewidth=1.6)
            end = max(end, min(interval.high, limit))
        text = wording.in_unit(metric, value) + (" ▸ (cut)" if cut else "")
        axis.text(end + 0.015 * limit, row, text, va="center", fontsize=11)
    axis.set_xlim(0, 1.22 * limit)
    axis.grid(axis="x", color="#E5E5E5")
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


def _add_legend(figure: Figure, comparison: Comparison) -> None:
    looks: dict[str, BarLook] = {}
    for one in comparison.schedulers:
        look = bar_look(one, comparison.baseline)
        looks.setdefault(look.meaning, look)
    handles = [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="#444444", label=meaning)
        for meaning, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
