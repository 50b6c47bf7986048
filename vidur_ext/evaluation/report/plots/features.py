"""What the policy looks at: the features whose loss changes most decisions."""

from __future__ import annotations

from matplotlib.figure import Figure

from vidur_ext.evaluation.importance import FamilyImportance, Importance
from vidur_ext.evaluation.report.plots.looks import (
    LEARNED_COLOR,
    PLANNER_COLOR,
    WIDTH_IN,
    open_axis,
)

_SHOWN = 15


def feature_bars(importance: Importance) -> Figure:
    """Return how many decisions change without each family of features, and what that costs."""
    shown = importance.families[:_SHOWN]
    figure = Figure(figsize=(WIDTH_IN, 1.6 + 0.42 * len(shown)), layout="constrained")
    changed, cost = figure.subplots(1, 2, sharey=True)
    rows = range(len(shown))
    changed.barh(rows, [100 * one.changed for one in shown], color=LEARNED_COLOR, height=0.7)
    cost.barh(rows, [one.cost for one in shown], color=PLANNER_COLOR, height=0.7)
    changed.set_yticks(rows, [_name(one) for one in shown])
    changed.set_ylim(len(shown) - 0.5, -0.5)
    changed.set_title(f"Decisions of {importance.policy} that change")
    changed.set_xlabel("% of decisions that change")
    cost.set_title("What these decisions cost more")
    cost.set_xlabel("request-seconds per decision")
    cost.axvline(0, color="#444444", linewidth=1)
    for axis in (changed, cost):
        open_axis(axis)
    return figure


def _name(one: FamilyImportance) -> str:
    names = one.names if len(one.names) < 3 else (one.names[0], "…", one.names[-1])
    return ", ".join(names) + (" (in common)" if one.common else "")
