"""The known formats, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ppo_scheduler.errors import UserError
from vidur_ext.workload.traces import azure, burstgpt, mooncake, splitwise
from vidur_ext.workload.traces.errors import line_error
from vidur_ext.workload.traces.text_file import read_text
from vidur_ext.workload.traces.values import Trace

READERS: dict[str, Callable[[Path], Trace]] = {
    "azure": azure.read,
    "splitwise": splitwise.read,
    "burstgpt": burstgpt.read,
    "mooncake": mooncake.read,
}
_CSV_COLUMNS = {
    "azure": azure.COLUMNS,
    "splitwise": splitwise.COLUMNS,
    "burstgpt": burstgpt.COLUMNS,
}


def choose_format(path: Path, trace_format: str) -> str:
    """Return the format to read ``path`` with; ``auto`` looks at its first line.

    A CSV header that has only some of a format's columns counts as that format, whose reader then
    says which are missing.

    Raises:
        UserError: the format is unknown, or no known one begins like the file.
    """
    if trace_format in READERS:
        return trace_format
    if trace_format != "auto":
        raise UserError(
            f"trace_format={trace_format!r}: expected auto or one of {', '.join(READERS)}"
        )
    first_line = read_text(path).partition("\n")[0].strip()
    if first_line.startswith("{"):
        return "mooncake"
    header = {name.strip(' "') for name in first_line.split(",")}
    known = {name: len(header.intersection(columns)) for name, columns in _CSV_COLUMNS.items()}
    best = max(known, key=lambda name: known[name])
    if known[best] == 0:
        raise line_error(path, 1, f"{_expectation()}; found {first_line[:60]!r}")
    return best


def _expectation() -> str:
    headers = "; ".join(f"{name}: {','.join(columns)}" for name, columns in _CSV_COLUMNS.items())
    keys = ",".join(mooncake.KEYS)
    return f"expected the CSV header of a known trace ({headers}) or JSON lines (mooncake: {keys})"
