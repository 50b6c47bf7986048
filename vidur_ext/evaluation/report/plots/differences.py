"""The first picture: how much better or worse the policy is than each other scheduler, paired."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.plots.looks import WIDTH_IN, bar_look, label_rows, open_axis
from vidur_ext.evaluation.statistics import MATERIAL, PairedDifference

_PANELS = {"e2e_mean_s": "mean E2E", "ttft_p99_s": "p99 TTFT"}
_CUT_AT = 0.6
"""Changes beyond ±60 % stand at the edge, or a control would squeeze all others."""


def paired_differences(comparison: Comparison, learned: SchedulerComparison) -> Figure:
    """Return the relative change from each scheduler to the policy under test, with intervals."""
    others = tuple(one for one in comparison.schedulers if not one.learned)
    height = 1.6 + 0.38 * len(others)
    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    axes = figure.subplots(1, len(_PANELS), sharey=True)
    for axis, (metric, title) in zip(axes, _PANELS.items(), strict=True):
        _draw_panel(axis, comparison, learned, others, metric)
        axis.set_title(f"{learned.name} against each: {title}")
    label_rows(axes[0], others)
    return figure


def _draw_panel(
    axis: Axes,
    comparison: Comparison,
    learned: SchedulerComparison,
    others: tuple[SchedulerComparison, ...],
    metric: str,
) -> None:
    found = [learned.versus[one.name][metric] for one in others]
    limit = _limit(found)
    axis.axvspan(-100 * MATERIAL, 100 * MATERIAL, color="#EEEEEE", zorder=0)
    axis.axvline(0, color="#444444", linewidth=1)
    for row, (one, difference) in enumerate(zip(others, found, strict=True)):
        if difference is None or difference.ratio is None or difference.ratio_interval is None:
            axis.text(0, row, wording.NOTHING, va="center", ha="center")
            continue
        look = bar_look(one, comparison)
        change = 100 * (difference.ratio - 1)
        low, high = (100 * (bound - 1) for bound in difference.ratio_interval.to_list())
        beyond = abs(change) > limit
        if beyond:
            axis.plot(
                limit if change > 0 else -limit, row, marker=">" if change > 0 else "<",
                color=look.color, markeredgecolor="#444444", markersize=9,
            )  # fmt: skip
        else:
            axis.hlines(row, max(low, -limit), min(high, limit), color="#444444", linewidth=2)
            axis.plot(
                change, row, marker="o", color=look.color, markeredgecolor="#444444", markersize=9
            )
        axis.text(
            1.02, row, wording.change(metric, difference), va="center", fontsize=11,
            transform=axis.get_yaxis_transform(),
        )  # fmt: skip
    open_axis(axis)
    axis.set_xlim(-1.05 * limit, 1.05 * limit)
    axis.set_xlabel(f"change in %, left of 0: {learned.name} is faster")


def _limit(differences: list[PairedDifference | None]) -> float:
    """Return the largest change in %, interval included, that is drawn where it lies."""
    ends = [
        abs(bound - 1)
        for difference in differences
        if difference is not None and difference.ratio_interval is not None
        for bound in difference.ratio_interval.to_list()
    ]
    return 100 * max([2 * MATERIAL, *(end for end in ends if end <= _CUT_AT)])
