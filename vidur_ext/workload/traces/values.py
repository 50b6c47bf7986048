"""The values of a trace: token counts, seconds, and their order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.traces.errors import column_error, file_error, value_error

_MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class Trace:
    """A recording: its requests, and what a reader of the run log should know about them."""

    table: RequestTable
    notes: tuple[str, ...] = ()


@dataclass
class TraceRows:
    """Collects the requests of a file and checks that they are in order.

    ``time_column`` is named in errors.
    """

    path: Path
    time_column: str
    _rows: list[tuple[float, int, int]] = field(default_factory=list)
    _previous: tuple[float, int] = (-math.inf, 0)

    def arrive(self, line: int, seconds: float) -> None:
        """Note that line ``line`` arrives at ``seconds``, whether its request counts or not."""
        earlier, above = self._previous
        if seconds < earlier:
            raise column_error(
                self.path,
                line,
                self.time_column,
                f"expected a time not before that of line {above}, found one "
                f"{earlier - seconds:g} s earlier; sort the file by {self.time_column}",
            )
        self._previous = (seconds, line)

    def add(self, line: int, seconds: float, prompt: int, output: int) -> None:
        """Append a request."""
        self.arrive(line, seconds)
        self._rows.append((seconds, prompt, output))

    def trace(self, *notes: str) -> Trace:
        """Return the collected requests, the first arriving at time 0."""
        if not self._rows:
            raise file_error(self.path, "holds no request; expected at least one")
        first = self._rows[0][0]
        rows = [(seconds - first, prompt, output) for seconds, prompt, output in self._rows]
        return Trace(RequestTable.from_rows(rows), notes)


def parse_tokens(path: Path, line: int, column: str, text: str, least: int = 1) -> int:
    """Return a token count of at least ``least``.

    Raises:
        UserError: the text is no such integer.
    """
    digits = text.strip()
    value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else -1
    return check_tokens(path, line, column, value, text, least)


def check_tokens(
    path: Path, line: int, column: str, value: int, found: object, least: int = 1
) -> int:
    """Return ``value`` if it is a possible token count; ``found`` is what the file says."""
    if value > _MOST_TOKENS:
        raise value_error(path, line, column, f"an integer <= {_MOST_TOKENS}", found)
    if value < least:
        raise value_error(path, line, column, f"an integer >= {least}", found)
    return value


def parse_seconds(path: Path, line: int, column: str, text: str) -> float:
    """Return a finite time of at least 0.

    Raises:
        UserError: the text is no such number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return check_time(path, line, column, value, text)


def check_time(path: Path, line: int, column: str, value: float, found: object) -> float:
    """Return ``value`` if it is a possible time; ``found`` is what the file says."""
    if not (math.isfinite(value) and value >= 0.0):
        raise value_error(path, line, column, "a number >= 0", found)
    return value
