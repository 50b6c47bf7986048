"""All pictures of a comparison, drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.importance import Importance
from vidur_ext.evaluation.load_sweep import LoadSweep
from vidur_ext.evaluation.report.plots.bars import latency_bars, replica_shares, slo_bars
from vidur_ext.evaluation.report.plots.differences import paired_differences
from vidur_ext.evaluation.report.plots.distributions import latency_cdf
from vidur_ext.evaluation.report.plots.features import feature_bars
from vidur_ext.evaluation.report.plots.learning import NOT_VALIDATED, Learning, learning_curve
from vidur_ext.evaluation.report.plots.loads import latency_over_load
from vidur_ext.evaluation.report.plots.prompt_lengths import latency_by_prompt
from vidur_ext.evaluation.report.plots.timelines import timelines
from vidur_ext.evaluation.report.plots.tradeoff import mean_against_tail
from vidur_ext.evaluation.run_result import RunResult

ANSWER = "differences.png"
"""The picture that belongs to the headline; there only if a policy is compared."""

PROMPTS = "prompt_lengths.png"
"""Where the policy's gain comes from; there only if a policy is compared."""

TIMELINES = "timelines.png"
"""How full each replica was; there only if a policy is compared."""

FEATURES = "features.png"
"""What the policy looks at; there only if that was measured."""

LOADS = "loads.png"
"""Latency over load; there only if that was asked for."""

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 14,
    "hatch.linewidth": 0.7,
    "text.parse_math": False,  # a dollar in a name is a dollar
}
_DOTS_PER_INCH = 100


def draw_plots(
    comparison: Comparison,
    runs: Sequence[RunResult],
    learning: Learning = NOT_VALIDATED,
    importance: Importance | None = None,
    sweep: LoadSweep | None = None,
) -> dict[str, bytes]:
    """Return PNG files by file name, in the order in which the page shows them.

    Args:
        learning: how the training was validated, if it was; one validation is no curve.
        importance: what the policy under test looks at, if that was measured.
        sweep: the comparison at several loads, if it was made.

    Equal input gives equal bytes. No global plotting state is used, so any thread may call this.
    """
    learned = comparison.under_test
    with rc_context(_STYLE):
        figures = {
            **({} if learned is None else {ANSWER: paired_differences(comparison, learned)}),
            **({"learning.png": learning_curve(learning)} if len(learning.validated) > 1 else {}),
            "tradeoff.png": mean_against_tail(comparison),
            "e2e.png": latency_bars(comparison, "e2e", "End-to-end latency"),
            "ttft.png": latency_bars(comparison, "ttft", "Time to first token"),
            "slo_attainment.png": slo_bars(comparison),
            "latency_cdf.png": latency_cdf(comparison, runs),
            **({} if learned is None else {PROMPTS: latency_by_prompt(comparison, runs)}),
            **({} if learned is None else {TIMELINES: timelines(comparison, learned, runs)}),
            **({} if importance is None else {FEATURES: feature_bars(importance)}),
            "replica_shares.png": replica_shares(comparison),
            **({} if sweep is None else {LOADS: latency_over_load(sweep)}),
        }
        return {name: _png(figure) for name, figure in figures.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # Without this the library writes its version into the file.
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
