"""Mean against tail: what each scheduler pays of one for the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.plots.looks import WIDTH_IN, bar_look, highlighted, open_axis

_CUT_AT_MEDIANS = 4.0
"""A point further away than this many medians would press all others into a corner."""

_LINES = 26
"""So many names fit beside the picture."""


class Point(NamedTuple):
    """A scheduler in the plane [s]."""

    one: SchedulerComparison
    e2e_mean_s: float
    ttft_p99_s: float


def mean_against_tail(comparison: Comparison) -> Figure:
    """Return p99 TTFT over mean E2E, a point per scheduler, and the front of those at work."""
    figure = Figure(figsize=(WIDTH_IN, 6.4), layout="constrained")
    axis = figure.subplots()
    points = [
        Point(one, *map(_number, (one.pooled["e2e_mean_s"], one.pooled["ttft_p99_s"])))
        for one in comparison.schedulers
    ]
    near = _near(points)
    best = front([point for point in near if point.one.realistic])
    axis.plot(
        [point.e2e_mean_s for point in best], [point.ttft_p99_s for point in best],
        color="#444444", linewidth=1.2, linestyle="dashed", zorder=1,
    )  # fmt: skip
    for point in near:
        look = bar_look(point.one, comparison)
        axis.plot(
            point.e2e_mean_s, point.ttft_p99_s, marker="o", markeredgecolor="#444444",
            color=look.color, markersize=12 if highlighted(point.one, comparison) else 8,
        )  # fmt: skip
    _name(axis, near)
    left_out = [point.one.marked_name for point in points if point not in near]
    axis.set_title("Mean E2E against p99 TTFT, lower left is better")
    beyond = f"; beyond the picture: {', '.join(left_out)}" if left_out else ""
    axis.set_xlabel(f"mean E2E [s]{beyond}")
    axis.set_ylabel("p99 TTFT [s]")
    open_axis(axis)
    return figure


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that none of the others beats in both figures, by mean E2E."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: point[1:]):
        if not best or point.ttft_p99_s < best[-1].ttft_p99_s:
            best.append(point)
    return best


def _number(value: float | None) -> float:
    assert value is not None, "every request has a first token and an end"
    return value


def _near(points: Sequence[Point]) -> list[Point]:
    medians = np.median([point[1:] for point in points], axis=0)
    return [point for point in points if (np.array(point[1:]) <= _CUT_AT_MEDIANS * medians).all()]


def _name(axis: Axes, points: Sequence[Point]) -> None:
    """Write the names beside the picture, top to bottom as the points lie, with lines to them."""
    low, high = axis.get_ylim()
    step = 1 / max(_LINES, len(points))
    ordered = sorted(points, key=lambda point: point.ttft_p99_s)
    heights = [(point.ttft_p99_s - low) / (high - low) for point in ordered]
    floor = 0.0
    for place, (point, height) in enumerate(zip(ordered, heights, strict=True)):
        above = 1.0 - step * (len(ordered) - 1 - place)
        floor = min(max(height, floor), above)
        axis.annotate(
            f"{point.one.marked_name}  {wording.number(point.ttft_p99_s)}",
            xy=(point.e2e_mean_s, point.ttft_p99_s),
            xytext=(1.02, floor), textcoords="axes fraction", va="center", fontsize=11,
            fontweight="bold" if point.one.learned else "normal",
            arrowprops={"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.7, "zorder": 0},
        )  # fmt: skip
        floor += step
