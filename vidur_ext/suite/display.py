"""A suite on the terminal: scenarios by seeds, what each is doing and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from vidur_ext.suite.plan import Cell
from vidur_ext.suite.progress import Progress, Stage

_STYLES: dict[Stage, str] = {
    "waiting": "dim",
    "done": "green",
    "stopped": "yellow",
    "failed": "red",
}


class Display:
    """A table that is drawn again and again; without a terminal a line whenever a stage begins.

    A context manager, to be called with every cell's progress.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: dict[Cell, Stage] = {}
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Mapping[Cell, Progress]) -> None:
        """Show where all cells are."""
        if self._live is not None:
            self._live.update(overview(progress), refresh=True)
            return
        for cell, one in progress.items():
            if one.stage not in ("waiting", self._stages.get(cell)):
                self._stages[cell] = one.stage
                after = "" if one.seconds is None else f" ({_duration(one.seconds)})"
                line = f"{datetime.now():%H:%M:%S} {cell.name}: {one.stage}{after}"
                self._console.print(Text(line), soft_wrap=True)


def overview(progress: Mapping[Cell, Progress]) -> Table:
    """Return a row per scenario and a column per seed."""
    seeds = sorted({cell.seed for cell in progress})
    stages = Counter(one.stage for one in progress.values())
    counts = ", ".join(f"{number} {stage}" for stage, number in stages.items())
    table = Table(box=None, pad_edge=False, title=counts, title_justify="left")
    table.add_column("scenario")
    for seed in seeds:
        table.add_column(f"seed {seed}")
    rows: dict[str, dict[int, Text]] = {}
    for cell, one in progress.items():
        rows.setdefault(cell.scenario, {})[cell.seed] = _text(one)
    for scenario, texts in rows.items():
        table.add_row(Text(scenario), *(texts[seed] for seed in seeds))
    return table


def _text(progress: Progress) -> Text:
    parts: list[str] = [progress.stage]
    if progress.share is not None:
        parts.append(f"{progress.share:.0%}")
    if progress.seconds is not None:
        parts.append(_duration(progress.seconds))
    return Text(" ".join(parts), style=_STYLES.get(progress.stage, ""))


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
