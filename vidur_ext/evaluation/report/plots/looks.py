"""What a scheduler looks like, the same in every plot, told apart without color vision too.

The few that a reader looks for have a color: the policy, the warm start it began with, the best
heuristic, the baseline, planners. All others are grey. Colors: Okabe and Ito, "Color Universal
Design" (2008), less its yellow, which vanishes on white.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.metrics import CONTROL_MARK, ORACLE_MARK, PLANNER_MARK

LEARNED_COLOR = "#D55E00"
BASELINE_COLOR = "#0072B2"
BEST_COLOR = "#E69F00"
PLANNER_COLOR = "#009E73"
OTHER_POLICY_COLOR = "#CC79A7"
OTHER_BAR = "#A9B8C9"
CONTROL_BAR = "#DDDDDD"
GRID_COLOR = "#E5E5E5"

_GREYS = ("#6E6E6E", "#8C8C8C", "#A6A6A6", "#BDBDBD")
_DASHES = ("solid", "dashed", "dashdot", "dotted")

WIDTH_IN = 12.0
"""At 100 dots per inch: 1200 pixels."""


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


def bar_look(one: SchedulerComparison, comparison: Comparison) -> BarLook:
    """Return the look of a scheduler's bar."""
    if one.learned:
        return BarLook(LEARNED_COLOR, "", "learned policy")
    if one.policy:
        return BarLook(OTHER_POLICY_COLOR, "", "other policy")
    if one.name == comparison.baseline:
        return BarLook(BASELINE_COLOR, "", "baseline")
    if one.name == comparison.best_heuristic:
        return BarLook(BEST_COLOR, "", "best heuristic")
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


def highlighted(one: SchedulerComparison, comparison: Comparison) -> bool:
    """Return whether a scheduler is one of the few that a reader looks for."""
    return one.policy or one.planner or one.name in (comparison.baseline, comparison.best_heuristic)


def line_looks(comparison: Comparison) -> dict[str, LineLook]:
    """Return the look of each scheduler's line: no two are alike, up to 16 grey ones."""
    looks: dict[str, LineLook] = {}
    met: Counter[str] = Counter()
    for one in comparison.schedulers:
        if highlighted(one, comparison):
            color = bar_look(one, comparison).color
            width, order = (3.2, 5) if one.learned else (2.4, 4)
            dashes = _DASHES[met[color] % len(_DASHES)]
        else:
            color, width, order = "grey", 1.3, 2
            dashes = _DASHES[met[color] // len(_GREYS) % len(_DASHES)]
        shade = _GREYS[met[color] % len(_GREYS)] if color == "grey" else color
        looks[one.name] = LineLook(shade, width, dashes, order)
        met[color] += 1
    return looks


def figure_height(comparison: Comparison) -> float:
    """Return inches that give every scheduler a readable row."""
    return 1.9 + 0.42 * len(comparison.schedulers)


def label_rows(axis: Axes, schedulers: tuple[SchedulerComparison, ...]) -> None:
    """Name the schedulers at the rows of ``axis``, first on top, the learned policy in bold."""
    names = [one.marked_name for one in schedulers]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    for one, tick in zip(schedulers, axis.get_yticklabels(), strict=True):
        if one.learned:
            tick.set_fontweight("bold")


def open_axis(axis: Axes) -> None:
    """Give ``axis`` a quiet grid below what is drawn, and no frame."""
    axis.grid(color=GRID_COLOR)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def add_legend(figure: Figure, comparison: Comparison) -> None:
    """Say below ``figure`` what the looks of its bars mean."""
    looks: dict[str, BarLook] = {}
    for one in comparison.schedulers:
        look = bar_look(one, comparison)
        looks.setdefault(look.meaning, look)
    handles = [
        Patch(facecolor=look.color, hatch=look.hatch, edgecolor="#444444", label=meaning)
        for meaning, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
