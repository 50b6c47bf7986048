"""The comparison as tables for a terminal of 80 columns or more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.load_sweep import LoadSweep
from vidur_ext.evaluation.metrics import STATISTICS, Latency
from vidur_ext.evaluation.report import tables, wording
from vidur_ext.evaluation.report.tables import Cell, Columns, TableRow

_HIGHLIGHT = "bold yellow"
_COLORS = {"better": "green", "worse": "red"}


def print_comparison(
    comparison: Comparison,
    console: Console,
    engines: EngineComparison | None = None,
    sweep: LoadSweep | None = None,
) -> None:
    """Print the tables of a comparison, then its headline and footnotes.

    Args:
        engines: runs that both engines made, if there are any: a line, and what differs.
        sweep: the comparison at several loads, if it was made.
    """
    for table in (*_tables(comparison), *([] if sweep is None else [_over_load(sweep)])):
        console.print(table)
        console.print()
    console.print(Text(wording.headline(comparison), style="bold"))
    for note in (*wording.notes(comparison), *wording.check_notes(comparison, engines)):
        console.print(Text(note, style="dim"))


def _tables(comparison: Comparison) -> list[Table]:
    best, reuse = tables.best_heuristic_columns(comparison), tables.reuse_columns(comparison)
    return [
        _e2e(comparison),
        *([] if best is None else [_table(comparison, wording.best_title(comparison), [best])]),
        *_other_policies(comparison),
        _tokens(comparison),
        _service(comparison),
        *([] if reuse is None else [_table(comparison, "Prefixes and sessions", [reuse])]),
    ]


def _e2e(comparison: Comparison) -> Table:
    against = {wording.HEADLINE_METRIC: f"mean vs {comparison.baseline}"}
    groups = [
        tables.latency_columns(comparison, "e2e"),
        tables.baseline_columns(comparison, against),
    ]
    return _table(comparison, "End-to-end latency [s]", groups)


def _other_policies(comparison: Comparison) -> list[Table]:
    metrics = {metric: tables.COMPARED[metric] for metric in ("e2e_mean_s", "ttft_p99_s")}
    others = tables.other_policy_columns(comparison, metrics)
    if comparison.under_test is None or others is None:
        return []
    return [_table(comparison, f"Against {comparison.under_test.name}", [others])]


def _tokens(comparison: Comparison) -> Table:
    latencies: tuple[Latency, ...] = ("ttft", "tbt")
    groups = [tables.latency_columns(comparison, latency) for latency in latencies]
    names = [f"{latency.upper()} {name}" for latency in latencies for name in STATISTICS]
    title = "Time to first token [s], time between tokens [ms]"
    return _table(comparison, title, groups, names)


def _service(comparison: Comparison) -> Table:
    return _table(comparison, "Service", [tables.service_columns(comparison)])


def _table(
    comparison: Comparison,
    title: str,
    groups: Sequence[Columns],
    names: Sequence[str] | None = None,
) -> Table:
    """Return the groups side by side; ``names`` of the columns if not the groups' own."""
    columns = names or [name for group in groups for name in group.names]
    return _of_rows(title, columns, tables.rows(comparison, groups))


def _over_load(sweep: LoadSweep) -> Table:
    names, rows = tables.load_table(sweep)
    rows = [replace(row, cells=tuple(Cell(cell.text) for cell in row.cells)) for row in rows]
    title = f"Over load, 100 % is {wording.number(sweep.sustained)} requests/s"
    return _of_rows(title, names, rows)


def _of_rows(title: str, columns: Sequence[str], rows: Sequence[TableRow]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("scheduler", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        style = _HIGHLIGHT if row.learned else None
        table.add_row(Text(row.name), *map(_text, row.cells), style=style)
    return table


def _text(cell: Cell) -> Text:
    """Return a figure alone, for 80 columns; a difference with its interval and verdict."""
    text = Text(cell.text)
    if cell.verdict:
        text.append(f" {cell.interval}")
        text.append(f" {cell.verdict}", style=_COLORS.get(cell.verdict, ""))
    return text
