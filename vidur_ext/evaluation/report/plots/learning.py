"""Whether the policy learned: its validations, from the warm start to the end of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from vidur_ext.evaluation.report.plots.looks import (
    LEARNED_COLOR,
    OTHER_POLICY_COLOR,
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


def learning_curve(validated: Sequence[Validated]) -> Figure:
    """Return mean E2E and mean TTFT over the decisions trained, the chosen policy as a star."""
    figure = Figure(figsize=(WIDTH_IN, 4.4), layout="constrained")
    axes = figure.subplots(1, 2)
    steps = [one.global_step for one in validated]
    panels = {
        "mean E2E": [one.e2e_s for one in validated],
        "mean TTFT": [one.ttft_s for one in validated],
    }
    for axis, (title, seconds) in zip(axes, panels.items(), strict=True):
        axis.axhline(seconds[0], color=OTHER_POLICY_COLOR, linestyle="dashed", linewidth=1.6)
        axis.plot(steps, seconds, color=LEARNED_COLOR, marker="o", linewidth=2.4)
        for one, step, second in zip(validated, steps, seconds, strict=True):
            if one.chosen:
                axis.plot(
                    step, second, marker="*", markersize=20, color=LEARNED_COLOR,
                    markeredgecolor="black",
                )  # fmt: skip
        axis.set_title(f"{title} on the validation workloads")
        axis.set_ylabel("seconds, lower is better")
        axis.set_xlabel("decisions trained")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        open_axis(axis)
    return figure
