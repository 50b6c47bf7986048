"""Scatter plots: what was simulated against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from real_runs import Run
from steady_state import Row

from ppo_scheduler.observation import Floats
from vidur_ext.evaluation.report.plots.looks import (
    BASELINE_COLOR,
    BEST_COLOR,
    LEARNED_COLOR,
    PLANNER_COLOR,
    open_axis,
)

Judged = tuple[list[Row], Floats]

_COLORS = (BASELINE_COLOR, LEARNED_COLOR, PLANNER_COLOR, BEST_COLOR)
_MARKERS = ("o", "s", "^", "D")
_BAND = 0.1


def draw_tpot(judged: Judged, others: Sequence[Judged], path: Path) -> None:
    """Draw TPOT: the judged server by TP, beside it all others by their software."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _groups(left, [judged], lambda row: f"TP {row.tensor_parallel}")
    _against(left, f"{judged[0][0].server}: held-out rows", "TPOT [ms]")
    if others:
        _groups(right, others, lambda row: row.server.rpartition("_")[2])
        _against(right, "all other servers: held-out rows", "TPOT [ms]")
    _save(figure, path)


def _groups(axis: Axes, judged: Sequence[Judged], name_of: Callable[[Row], str]) -> None:
    points: dict[str, list[tuple[float, float]]] = {}
    for rows, predicted in judged:
        for row, tpot_ms in zip(rows, predicted, strict=True):
            points.setdefault(name_of(row), []).append((row.tpot_ms, float(tpot_ms)))
    for number, (name, pairs) in enumerate(sorted(points.items())):
        measured, simulated = np.array(pairs).T
        _points(axis, measured, simulated, name, number)


def draw_runs(compared: Mapping[str, tuple[Run, Mapping[str, Floats]]], path: Path) -> None:
    """Draw TTFT and E2E of every request, a row of panels per run."""
    figure = Figure(figsize=(11, 4.8 * len(compared)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(compared), 2, squeeze=False)
    for line, (run, times) in zip(panels, compared.values(), strict=True):
        real = {"ttft": run.measured.ttft_s, "e2e": run.measured.e2e_s}
        for axis, key in zip(line, real, strict=True):
            _points(axis, real[key], times[key], "a request", 0)
            _against(axis, run.name, f"{key.upper()} [s]")
    _save(figure, path)


def _points(axis: Axes, measured: Floats, predicted: Floats, label: str, number: int) -> None:
    color, marker = _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)]
    axis.scatter(
        measured, predicted, s=20, alpha=0.6, color=color, marker=marker, label=label, zorder=3
    )


def _against(axis: Axes, title: str, what: str) -> None:
    """Draw equality and a band of 10 % around it on logarithmic axes of one scale."""
    low, high = 0.8 * float(np.min(axis.dataLim.min)), 1.25 * float(np.max(axis.dataLim.max))
    ends = np.array([low, high])
    axis.fill_between(
        ends,
        ends * (1 - _BAND),
        ends * (1 + _BAND),
        color="#DDDDDD",
        zorder=1,
        label=f"within {_BAND:.0%}",
    )
    axis.plot(ends, ends, color="#444444", linewidth=1.0, zorder=2)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal", title=title)
    axis.set(xlabel=f"measured {what}", ylabel=f"simulated {what}")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_locator(NullLocator())
    open_axis(axis)
    axis.legend(frameon=False, loc="upper left", fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
