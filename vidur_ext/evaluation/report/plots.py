"""The plots of a comparison as PNG files in memory: bars with 95 % intervals, and whole
distributions.

One look per scheduler, the same in every plot, told apart without color vision too. Colors: Okabe
and Ito, "Color Universal Design" (2008), less its yellow, which vanishes on white.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.metrics import (
    CONTROL_MARK,
    ORACLE_MARK,
    PLANNER_MARK,
    SLO_METRIC,
    CountedRun,
    Latency,
    RequestLatencies,
    pool,
)
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.run_result import RunResult

LEARNED_COLOR = "#D55E00"
BASELINE_COLOR = "#0072B2"
OTHER_BAR = "#A9B8C9"
CONTROL_BAR = "#DDDDDD"
PLANNER_COLOR = "#009E73"

_OTHER_LINES = ("#CC79A7", "#E69F00", "#56B4E9", "#777777")
_DASHES = ("solid", "dashed", "dashdot", "dotted")


@dataclass(frozen=True)
class BarLook:
    """Fill and hatch of a bar; ``meaning`` goes to the legend."""

    color: str
    hatch: str
    meaning: str


@dataclass(frozen=True)
class LineLook:
    """Color, width, dashes and drawing order of a line."""

    color: str
    width: float
    dashes: str
    order: int


def bar_look(one: SchedulerComparison, baseline: str) -> BarLook:
    """Return the look of a scheduler's bar."""
    if one.learned:
        return BarLook(LEARNED_COLOR, "", "learned policy")
    if one.name == baseline:
        return BarLook(BASELINE_COLOR, "", "baseline")
    if one.planner:
        clairvoyant = one.uses_output_lengths
        return BarLook(
            PLANNER_COLOR,
            "////" if clairvoyant else "",
            f"planner {ORACLE_MARK}{PLANNER_MARK}" if clairvoyant else f"planner {PLANNER_MARK}",
        )
    if one.uses_output_lengths:
        return BarLook("white", "////", f"oracle {ORACLE_MARK}")
    if one.control:
        return BarLook(CONTROL_BAR, "....", f"control {CONTROL_MARK}")
    return BarLook(OTHER_BAR, "", "other")


def line_looks(comparison: Comparison) -> dict[str, LineLook]:
    """Return the look of each scheduler's line; color and dashes are unique for 16 plain ones."""
    looks: dict[str, LineLook] = {}
    others = 0
    for one in comparison.schedulers:
        if one.learned:
            looks[one.name] = LineLook(LEARNED_COLOR, 3.2, "solid", 5)
        elif one.name == comparison.baseline:
            looks[one.name] = LineLook(BASELINE_COLOR, 2.4, "solid", 4)
        elif one.planner:
            dashes = "dashed" if one.uses_output_lengths else "solid"
            looks[one.name] = LineLook(PLANNER_COLOR, 2.4, dashes, 4)
        elif one.uses_output_lengths:
            looks[one.name] = LineLook("black", 1.6, "dashed", 3)
        else:
            color = _OTHER_LINES[others % len(_OTHER_LINES)]
            looks[one.name] = LineLook(color, 1.5, _DASHES[others // len(_OTHER_LINES) % 4], 2)
            others += 1
    return looks


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
    names = [one.marked_name for one in comparison.schedulers]
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
            color=look.color, hatch=look.hatch, edgecolor="#444444", linewidth=0.6,
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
        Patch(facecolor=look.color, hatch=look.hatch, edgecolor="#444444", label=meaning)
        for meaning, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


_PANELS: tuple[tuple[Latency, str], ...] = (
    ("e2e", "End-to-end"),
    ("ttft", "Time to first token"),
    ("tbt", "Time between tokens"),
)
_SHARES_NAMED = 8
_OUTLINED_REPLICAS = 64
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


def replica_shares(comparison: Comparison) -> Figure:
    """Return how the requests of each scheduler were spread over the replicas."""
    figure = Figure(figsize=(WIDTH_IN, figure_height(comparison)), layout="constrained")
    axis = figure.subplots()
    replicas = comparison.num_replicas
    colors = colormaps["cividis"](np.linspace(0.5, 1.0, replicas))
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
    axis.spines[["top", "right"]].set_visible(False)
    label_rows(axis, comparison)
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
    axis.grid(color="#E5E5E5")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
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


_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 14,
    "hatch.linewidth": 0.7,
}
_DOTS_PER_INCH = 100


def draw_plots(comparison: Comparison, runs: Sequence[RunResult]) -> dict[str, bytes]:
    """Return PNG files by file name, in the order in which the page shows them.

    Equal input gives equal bytes. No global plotting state is used, so any thread may call this.
    """
    with rc_context(_STYLE):
        figures = {
            "e2e.png": latency_bars(comparison, "e2e", "End-to-end latency"),
            "ttft.png": latency_bars(comparison, "ttft", "Time to first token"),
            "slo_attainment.png": slo_bars(comparison),
            "latency_cdf.png": latency_cdf(comparison, runs),
            "replica_shares.png": replica_shares(comparison),
        }
        return {name: _png(figure) for name, figure in figures.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # Without this the library writes its version into the file.
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
