"""Whom a scheduler serves better: latency by the length of the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.metrics import CountedRun, Latency, pool
from vidur_ext.evaluation.report.plots.looks import WIDTH_IN, highlighted, line_looks, open_axis
from vidur_ext.evaluation.run_result import RunResult

_PANELS: dict[Latency, str] = {"e2e": "mean E2E", "ttft": "mean TTFT"}
_CLASSES = 4


def latency_by_prompt(comparison: Comparison, runs: Sequence[RunResult]) -> Figure:
    """Return the change of mean latencies against the best heuristic, per quarter of the prompts.

    Only the schedulers that a reader looks for are drawn. Without a best heuristic, changes are
    those against the baseline.
    """
    reference = comparison.best_heuristic or comparison.baseline
    shown = [
        one.name
        for one in comparison.schedulers
        if highlighted(one, comparison) and one.name != reference
    ]
    figure = Figure(figsize=(WIDTH_IN, 5.2), layout="constrained")
    axes = figure.subplots(1, len(_PANELS))
    looks = line_looks(comparison)
    for axis, (latency, title) in zip(axes, _PANELS.items(), strict=True):
        names, base = mean_by_prompt(comparison, runs, reference, latency)
        axis.axhline(0, color="#444444", linewidth=1)
        for name in shown:
            _, means = mean_by_prompt(comparison, runs, name, latency)
            change = np.divide(means, base, out=np.full_like(means, np.nan), where=base > 0) - 1
            look = looks[name]
            axis.plot(
                names, 100 * change, marker="o", color=look.color, linewidth=look.width,
                linestyle=look.dashes, zorder=look.order, label=comparison[name].marked_name,
            )  # fmt: skip
        axis.set_title(f"{title} against {reference}")
        axis.set_ylabel("change in %, below 0: faster")
        axis.set_xlabel("prompt tokens, a quarter of the requests each")
        open_axis(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=5, frameon=False, handlelength=3.2
    )
    return figure


def mean_by_prompt(
    comparison: Comparison, runs: Sequence[RunResult], scheduler: str, latency: Latency
) -> tuple[list[str], NDArray[np.float64]]:
    """Return the prompts' classes in words, and float64[classes] s: the mean latency of each.

    Lengths that are equal are in one class; a class that this leaves empty is left out.
    """
    counted = [
        CountedRun.of(run, comparison.warmup_fraction, comparison.objectives)
        for run in runs
        if run.scheduler == scheduler
    ]
    lengths = np.concatenate([one.run.table.prefill_tokens[one.first :] for one in counted])
    values = pool([one.latencies for one in counted])[latency]
    inner = np.quantile(lengths, np.linspace(0, 1, _CLASSES + 1)[1:-1])
    number = np.searchsorted(inner, lengths)
    found = [number == one for one in np.unique(number)]
    return (
        [f"{lengths[those].min():,}–{lengths[those].max():,}" for those in found],
        np.array([values[those].mean() for those in found]),
    )
