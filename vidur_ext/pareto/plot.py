"""The plot of the fronts as a PNG file in memory."""

from __future__ import annotations

import io

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from vidur_ext.evaluation.report.plots.looks import BASELINE_COLOR, LEARNED_COLOR, PLANNER_COLOR
from vidur_ext.pareto.front import MOST_TTFT_P99, Front, Tradeoff
from vidur_ext.pareto.measuring import PLANNER, POLICY

_STYLE = {"font.family": "DejaVu Sans", "font.size": 12, "axes.titlesize": 14}
_LOOKS = {
    PLANNER: (PLANNER_COLOR, "D", (8, 6)),
    POLICY: (LEARNED_COLOR, "o", (-8, -14)),
}
"""Color, marker, and where the value of L stands beside it [points]."""

_HALO = withStroke(linewidth=3.0, foreground="white")
"""Text on a line or marker stays legible."""


def draw_plot(tradeoff: Tradeoff) -> bytes:
    """Return the plot; equal results give equal bytes."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(11.0, 7.0), layout="constrained")
        axis = figure.subplots()
        _draw_limits(axis, tradeoff)
        for front in tradeoff.fronts:
            _draw(axis, front)
        axis.set_title("Mean latency against the tail of the first tokens, by L")
        axis.set_xlabel("mean E2E against the best heuristic [%], further left is better")
        axis.set_ylabel("p99 TTFT, times the best heuristic's; lower is better")
        axis.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 2.5, 5, 10]))
        axis.margins(0.08)
        axis.grid(color="#E5E5E5")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="best", frameon=False)
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        # Without a date or a version, equal results give equal bytes.
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _draw_limits(axis: Axes, tradeoff: Tradeoff) -> None:
    axis.axhline(
        MOST_TTFT_P99, color="#777777", linestyle="dashed", linewidth=1.2,
        label=f"x{MOST_TTFT_P99:g}: the rule takes the smallest L below",
    )  # fmt: skip
    axis.plot(
        0.0, 1.0, "s", color=BASELINE_COLOR, markersize=10,
        label=f"{tradeoff.best_heuristic}, the best heuristic",
    )  # fmt: skip


def _draw(axis: Axes, front: Front) -> None:
    """Draw a router's points, those that are Pareto-optimal filled and joined."""
    color, marker, offset = _LOOKS[front.router]
    optimal = [point for point in front.points if front.on_front(point)]
    optimal.sort(key=lambda point: point.e2e)
    axis.plot(
        [_change(point.e2e) for point in optimal], [point.ttft_p99 for point in optimal],
        color=color, marker=marker, markersize=8, linewidth=1.6, label=f"{front.router}, its front",
    )  # fmt: skip
    for point in front.points:
        chosen = point.weight == front.smallest_within
        if not front.on_front(point):
            axis.plot(_change(point.e2e), point.ttft_p99, marker, color=color, mfc="white")
        axis.annotate(
            f"L={point.weight:g}" if chosen else f"{point.weight:g}",
            (_change(point.e2e), point.ttft_p99), xytext=offset, textcoords="offset points",
            color=color, fontweight="bold" if chosen else "normal",
            ha="right" if offset[0] < 0 else "left", path_effects=[_HALO],
        )  # fmt: skip


def _change(ratio: float) -> float:
    return 100.0 * (ratio - 1.0)
