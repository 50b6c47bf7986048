"""What every benchmark shares: its options, its table, its JSON file."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ppo_scheduler.errors import UserError

Figures = dict[str, float]


def run_benchmark(description: str, measure: Callable[[bool], Mapping[str, float]]) -> None:
    """Parse ``--quick`` and ``--json FILE``, measure, print a table, write the figures.

    ``measure(quick)`` returns figures under plain keys; units are part of the key.
    """
    run_benchmark_with_options(
        description, lambda parser: None, lambda arguments: measure(arguments.quick)
    )


def plain_table(description: str, figures: Mapping[str, float]) -> Table:
    """Return a table with a row for every figure."""
    table = Table("figure", "value", title=description)
    for name, value in figures.items():
        table.add_row(name, f"{value:,.6g}")
    return table


def run_benchmark_with_options(
    description: str,
    add_options: Callable[[argparse.ArgumentParser], None],
    measure: Callable[[argparse.Namespace], Mapping[str, float]],
    shown: Callable[[str, Mapping[str, float]], Table] = plain_table,
) -> Figures:
    """Do the same for a benchmark with options of its own; ``measure`` gets all of them.

    ``shown(description, figures)`` is the table that is printed.

    A ``UserError`` is printed in one line and ends the program with status 2.

    Returns:
        What was measured, for a program whose exit status depends on it.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller, noisier measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add_options(parser)
    arguments = parser.parse_args()

    try:
        figures = dict(measure(arguments))
    except UserError as error:
        parser.error(str(error))
    Console().print(shown(description, figures))
    if arguments.json is not None:
        document = {
            "benchmark": description,
            "quick": arguments.quick,
            "python": platform.python_version(),
            "machine": platform.machine(),
            **figures,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return figures
