"""The comparison as tables for a terminal of 80 columns or more."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.metrics import SLO_METRIC, STATISTICS, marked
from vidur_ext.evaluation.report import engine_wording, wording

_HIGHLIGHT = "bold yellow"
_COLOURS = {"better": "green", "worse": "red"}


def print_comparison(
    comparison: Comparison, console: Console, engines: EngineComparison | None = None
) -> None:
    """Print the tables of a comparison, then its headline and footnotes.

    Args:
        engines: the same runs on both engines, if they were made: a line, and what differs.
    """
    for table in (e2e_table(comparison), token_table(comparison), service_table(comparison)):
        console.print(table)
        console.print()
    console.print(Text(wording.headline(comparison), style="bold"))
    for note in wording.notes(comparison):
        console.print(Text(note, style="dim"))
    if engines is not None:
        for line in (engine_wording.engine_line(engines), *engine_wording.engine_notes(engines)):
            console.print(Text(line, style="dim"))


def e2e_table(comparison: Comparison) -> Table:
    """Return mean and percentiles of E2E, and its mean against the baseline's."""
    table = _table("End-to-end latency [s]", [*STATISTICS, f"mean vs {comparison.baseline}"])
    for one in comparison.schedulers:
        difference = one.versus.get(comparison.baseline, {}).get(wording.HEADLINE_METRIC)
        against = Text(wording.change(wording.HEADLINE_METRIC, difference))
        if difference is not None:
            word = wording.verdict(difference)
            against.append(f" {wording.change_interval(wording.HEADLINE_METRIC, difference)}")
            against.append(f" {word}", style=_COLOURS.get(word, ""))
        _add_row(table, one, [*_latency(one, "e2e"), against])
    return table


def token_table(comparison: Comparison) -> Table:
    """Return mean and percentiles of TTFT and TBT."""
    names = [f"{latency} {statistic}" for latency in ("TTFT", "TBT") for statistic in STATISTICS]
    table = _table("Time to first token [s], time between tokens [ms]", names)
    for one in comparison.schedulers:
        _add_row(table, one, [*_latency(one, "ttft"), *_latency(one, "tbt")])
    return table


def service_table(comparison: Comparison) -> Table:
    """Return SLO attainment, throughput and how the requests were spread."""
    names = ["SLO met", "req/s", "out tok/s", "imbalance", "share of each replica"]
    table = _table("Service", names)
    for one in comparison.schedulers:
        pooled = one.pooled
        cells = [
            wording.in_unit(SLO_METRIC, pooled[SLO_METRIC]),
            wording.number(pooled.requests_per_s),
            wording.number(pooled.output_tokens_per_s),
            wording.number(pooled.imbalance),
            wording.shares(pooled.replica_shares),
        ]
        _add_row(table, one, cells)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("scheduler", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _latency(one: SchedulerComparison, latency: str) -> list[str]:
    metrics = [f"{latency}_{statistic}_s" for statistic in STATISTICS]
    return [wording.in_unit(metric, one.pooled[metric]) for metric in metrics]


def _add_row(table: Table, one: SchedulerComparison, cells: Sequence[str | Text]) -> None:
    name = Text(marked(one.name, oracle=one.uses_output_lengths))
    table.add_row(name, *cells, style=_HIGHLIGHT if one.learned else None)
