"""What every benchmark shares: its two options, its table, its JSON file."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

Figures = dict[str, float]


def run_benchmark(description: str, measure: Callable[[bool], Mapping[str, float]]) -> None:
    """Parse ``--quick`` and ``--json FILE``, measure, print a table, write the figures.

    ``measure(quick)`` returns figures under plain keys; units are part of the key.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller, noisier measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    arguments = parser.parse_args()

    figures = dict(measure(arguments.quick))
    table = Table("figure", "value", title=description)
    for name, value in figures.items():
        table.add_row(name, f"{value:,.6g}")
    Console().print(table)
    if arguments.json is not None:
        document = {
            "benchmark": description,
            "quick": arguments.quick,
            "python": platform.python_version(),
            "machine": platform.machine(),
            **figures,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
