"""What commands print: one document, as JSON for programs or as tables for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ppo_scheduler.errors import printable

Document = dict[str, Any]
"""JSON values."""

DASH = "–"


def show(document: Document, print_it: Callable[[Document], None], *, as_json: bool) -> None:
    """Print a document as JSON, or by ``print_it``."""
    if as_json:
        print_json(document)
    else:
        print_it(document)


def print_json(document: Document) -> None:
    """Print strict JSON, which knows neither infinity nor NaN: they become texts.

    What cannot be printed is written as JSON's escapes, wherever the output goes.
    """
    text = json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    typer.echo("".join(shown))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class _Terminal(Console):
    """Shows texts as they are, but for what a terminal would take for a command."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **how)


def console() -> Console:
    """Return the terminal; paths and names are printed as they are, as far as they can be."""
    return _Terminal()


def say(text: str, style: str = "") -> None:
    """Print a line; it is not broken, so that a path in it can be copied."""
    console().print(text, style=style, soft_wrap=True)


def table(*headers: str, right: Sequence[int] | None = None) -> Table:
    """Return an empty table.

    Args:
        right: columns that are aligned to the right; by default all but the first.
    """
    empty = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        is_right = index > 0 if right is None else index in right
        empty.add_column(header, justify="right" if is_right else "left", overflow="fold")
    return empty


def facts_table(facts: Mapping[str, str]) -> Table:
    """Return names and values, a line each."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, value)
    return grid


def moment(text: str) -> str:
    """Return an ISO time in UTC as people read it."""
    return text.replace("T", " ").removesuffix("+00:00")
