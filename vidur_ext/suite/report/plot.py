"""The plot of a suite as a PNG file in memory: a row per scenario, a mark per training seed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vidur_ext.evaluation.report.plots.looks import BASELINE_COLOR, LEARNED_COLOR
from vidur_ext.suite.results import ScenarioResult, SchedulerResult, SuiteResult

_STYLE = {"font.family": "DejaVu Sans", "font.size": 12, "axes.titlesize": 14}
_PLANNER_COLOR = "#009E73"
_ROW_IN = 0.75
_SPREAD = 0.55
"""Height of a row that its routers share."""


@dataclass(frozen=True)
class _Look:
    color: str
    marker: str
    filled: bool


def _look(one: SchedulerResult) -> _Look:
    if one.learned:
        return _Look(LEARNED_COLOR, "o", filled=True)
    if one.kind == "planner":
        return _Look(_PLANNER_COLOR, "x" if one.uses_output_lengths else "D", filled=False)
    return _Look(BASELINE_COLOR, "s", filled=False)


def draw_plot(result: SuiteResult) -> bytes:
    """Return the plot; equal results give equal bytes."""
    with rc_context(_STYLE):
        height = 2.1 + _ROW_IN * len(result.scenarios)
        figure = Figure(figsize=(12.0, height), layout="constrained")
        e2e, ttft = figure.subplots(1, 2, sharey=True)
        _draw(e2e, result.scenarios, _changes, reference=0.0)
        e2e.set_title("Mean E2E against the best heuristic")
        e2e.set_xlabel("change [%], further left is better")
        _draw(ttft, result.scenarios, lambda one: one.ttft_p99.by_seed, reference=1.0)
        ttft.set_title("p99 TTFT against the best heuristic")
        ttft.set_xlabel("ratio, further left is better")
        for axis in (e2e, ttft):
            axis.xaxis.set_major_locator(MaxNLocator(7))
        e2e.set_yticks(range(len(result.scenarios)), [one.name for one in result.scenarios])
        e2e.set_ylim(len(result.scenarios) - 0.5, -0.5)
        figure.legend(
            handles=_legend(result.scenarios), loc="outside lower center", ncols=4, frameon=False
        )
        buffer = io.BytesIO()
        FigureCanvasAgg(figure)
        # Without this the library writes its version into the file.
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _changes(one: SchedulerResult) -> list[float]:
    return [100.0 * (ratio - 1.0) for ratio in one.e2e.by_seed]


def _draw(
    axis: Axes,
    scenarios: Sequence[ScenarioResult],
    values_of: Callable[[SchedulerResult], Sequence[float]],
    reference: float,
) -> None:
    """Draw the routers of each scenario below each other: seeds as marks, their median as a bar.

    Args:
        reference: value of the best heuristic.
    """
    axis.axvline(reference, color="black", linewidth=1.2)
    for row, scenario in enumerate(scenarios):
        routers = scenario.routers
        for place, one in enumerate(routers):
            look, values = _look(one), values_of(one)
            y = row + _SPREAD * ((place + 0.5) / len(routers) - 0.5)
            axis.plot(
                values, [y] * len(values), linestyle="none", marker=look.marker,
                color=look.color, fillstyle="full" if look.filled else "none", markersize=7,
            )  # fmt: skip
            axis.plot([median(values)], [y], marker="|", color=look.color, markersize=18, mew=2.5)
        if row:
            axis.axhline(row - 0.5, color="#E5E5E5", linewidth=1)
    axis.grid(axis="x", color="#E5E5E5")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(scenarios: Sequence[ScenarioResult]) -> list[Line2D]:
    looks = {one.name: _look(one) for scenario in scenarios for one in scenario.routers}
    marks = [
        Line2D(
            [], [], linestyle="none", marker=look.marker, color=look.color, label=name,
            fillstyle="full" if look.filled else "none", markersize=7,
        )
        for name, look in looks.items()
    ]  # fmt: skip
    bar = Line2D(
        [], [], linestyle="none", marker="|", color="black", markersize=14, mew=2.5, label="median"
    )
    return [*marks, bar]
