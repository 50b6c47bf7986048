"""Whether the policy learned: its validations, from the warm start to the end of the training."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from vidur_ext.config.sections import PLANNERS
from vidur_ext.evaluation.report.plots.looks import (
    BEST_COLOR,
    LEARNED_COLOR,
    OTHER_POLICY_COLOR,
    PLANNER_COLOR,
    WIDTH_IN,
    open_axis,
)


class Validated(NamedTuple):
    """A policy of the training on the validation workloads: mean latencies of all requests [s]."""

    global_step: int
    e2e_s: float
    ttft_s: float
    chosen: bool
    """Whether it is what the training ended with."""


class Rival(NamedTuple):
    """A heuristic or planner on the validation workloads: mean latencies of all requests [s]."""

    name: str
    e2e_s: float
    ttft_s: float


class Learning(NamedTuple):
    """The validations of one training, and what its policy is to be compared with."""

    validated: tuple[Validated, ...] = ()
    rivals: tuple[Rival, ...] = ()


NOT_VALIDATED = Learning()

_PANELS = {"mean E2E": "e2e_s", "mean TTFT": "ttft_s"}


def learning_curve(learning: Learning) -> Figure:
    """Return mean E2E and mean TTFT over the decisions trained, the chosen policy as a star.

    Level lines are the first policy and the rivals.
    """
    figure = Figure(figsize=(WIDTH_IN, 4.8), layout="constrained")
    axes = figure.subplots(1, len(_PANELS))
    for axis, (title, latency) in zip(axes, _PANELS.items(), strict=True):
        _draw(axis, learning, latency)
        axis.set_title(f"{title} on the validation workloads")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _draw(axis: Axes, learning: Learning, latency: str) -> None:
    steps = [one.global_step for one in learning.validated]
    seconds = [getattr(one, latency) for one in learning.validated]
    for rival in learning.rivals:
        planner = rival.name in PLANNERS
        axis.axhline(
            getattr(rival, latency), color=PLANNER_COLOR if planner else BEST_COLOR,
            linestyle="dotted" if planner else "dashdot", linewidth=2.2, label=rival.name,
        )  # fmt: skip
    axis.axhline(
        seconds[0], color=OTHER_POLICY_COLOR, linestyle="dashed", linewidth=1.6,
        label="the first policy",
    )  # fmt: skip
    axis.plot(steps, seconds, color=LEARNED_COLOR, marker="o", linewidth=2.4, label="policy")
    for one, step, second in zip(learning.validated, steps, seconds, strict=True):
        if one.chosen:
            axis.plot(
                step, second, marker="*", markersize=20, color=LEARNED_COLOR,
                markeredgecolor="black", linestyle="none", label="the one kept",
            )  # fmt: skip
    axis.set_ylabel("seconds, lower is better")
    axis.set_xlabel("decisions trained")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    open_axis(axis)
