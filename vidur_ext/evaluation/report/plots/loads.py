"""Latency over load, and where the policy's gain on the best heuristic comes and goes."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from vidur_ext.evaluation.comparison import SchedulerComparison
from vidur_ext.evaluation.load_sweep import AtLoad, LoadSweep
from vidur_ext.evaluation.report.plots.looks import (
    BEST_COLOR,
    LEARNED_COLOR,
    OTHER_POLICY_COLOR,
    PLANNER_COLOR,
    WIDTH_IN,
    open_axis,
)
from vidur_ext.evaluation.statistics import MATERIAL

_PANELS = {"e2e_mean_s": "mean E2E", "ttft_p99_s": "p99 TTFT"}
_DASHES = ("dashed", "dashdot", "dotted", "solid")
_APART = 0.35
"""Between the intervals of two lines [% of saturation], which would hide each other."""


class _Line(NamedTuple):
    """scheduler: None is the best heuristic, at every load the one with the lowest mean E2E."""

    label: str
    scheduler: str | None
    color: str
    dashes: str

    def at(self, point: AtLoad) -> SchedulerComparison | None:
        """Return the scheduler that the line shows at a load, if there is one."""
        name = self.scheduler or point.comparison.best_heuristic
        return None if name is None else point.comparison[name]


def latency_over_load(sweep: LoadSweep) -> Figure:
    """Return mean E2E and p99 TTFT over load; below, changes against the best heuristic there,
    with 95 % intervals."""
    figure = Figure(figsize=(WIDTH_IN, 8.6), layout="constrained")
    absolute, relative = figure.subplots(2, len(_PANELS), sharex=True)
    for above, below, (metric, title) in zip(absolute, relative, _PANELS.items(), strict=True):
        _draw_latencies(above, sweep, metric)
        above.set_title(title)
        _draw_changes(below, sweep, metric)
        below.set_title(f"{title} against the best heuristic")
        below.set_xlabel("load in % of saturation")
    handles, labels = absolute[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _draw_latencies(axis: Axes, sweep: LoadSweep, metric: str) -> None:
    for row, line in enumerate(_lines(sweep)):
        found = [(point.load, line.at(point)) for point in sweep.points]
        known = [(100 * load, one.pooled[metric]) for load, one in found if one is not None]
        values = [(load, value) for load, value in known if value is not None]
        axis.plot(
            [load for load, _ in values], [value for _, value in values], label=line.label,
            marker="o", color=line.color, linestyle=line.dashes, linewidth=2.2,
            zorder=4 - row / 100,
        )  # fmt: skip
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel("seconds (log), lower is better")
    open_axis(axis)


def _draw_changes(axis: Axes, sweep: LoadSweep, metric: str) -> None:
    axis.axhspan(-100 * MATERIAL, 100 * MATERIAL, color="#EEEEEE", zorder=0)
    axis.axhline(0, color=BEST_COLOR, linewidth=2.2, linestyle="dashdot")
    for row, line in enumerate(_lines(sweep)):
        loads, changes, below, above = [], [], [], []
        for point in sweep.points:
            one, best = line.at(point), point.comparison.best_heuristic
            if line.scheduler is None or one is None or best is None:
                continue
            found = one.versus[best][metric]
            if found is None or found.ratio is None or found.ratio_interval is None:
                continue
            loads.append(100 * point.load + _APART * row)
            changes.append(100 * (found.ratio - 1))
            # A percentile interval need not hold the figure itself; no bar has a negative length.
            below.append(100 * max(found.ratio - found.ratio_interval.low, 0.0))
            above.append(100 * max(found.ratio_interval.high - found.ratio, 0.0))
        axis.errorbar(
            loads, changes, yerr=(below, above), marker="o", color=line.color,
            linestyle=line.dashes, linewidth=2.2, elinewidth=1.2, capsize=3, zorder=4 - row / 100,
        )  # fmt: skip
    axis.set_ylabel("change in %, below 0: faster")
    open_axis(axis)


def _lines(sweep: LoadSweep) -> list[_Line]:
    """Return what is drawn, the policy under test first."""
    schedulers = sweep.points[0].comparison.schedulers
    others = sorted(one.name for one in schedulers if one.policy and not one.learned)
    return [
        *(_Line(one.name, one.name, LEARNED_COLOR, "solid") for one in schedulers if one.learned),
        *(
            _Line(name, name, OTHER_POLICY_COLOR, _DASHES[row % len(_DASHES)])
            for row, name in enumerate(others)
        ),
        _Line("best heuristic", None, BEST_COLOR, "dashdot"),
        *(_Line(one.name, one.name, PLANNER_COLOR, "dotted") for one in schedulers if one.planner),
    ]
