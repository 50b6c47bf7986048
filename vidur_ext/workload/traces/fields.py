"""Reading text with errors that name file, line, column and what was expected."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.errors import UserError


@dataclass(frozen=True)
class Place:
    """A line of a trace file (from 1, the header included)."""

    path: Path
    line: int

    def error(self, column: str, expected: str, found: object) -> UserError:
        """Return the error about one value."""
        return UserError(
            f"{self.path}, line {self.line}, column {column}: expected {expected}, found {found!r}"
        )

    def tokens(self, column: str, text: object, minimum: int = 1) -> int:
        """Return a whole number of tokens of at least ``minimum``."""
        try:
            value = float(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = math.nan
        if isinstance(text, bool) or not value.is_integer() or value < minimum:
            raise self.error(column, f"an integer >= {minimum}", text)
        return int(value)

    def seconds(self, column: str, text: object) -> float:
        """Return a finite, non-negative time."""
        try:
            value = float(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = math.nan
        if isinstance(text, bool) or not math.isfinite(value) or value < 0.0:
            raise self.error(column, "a number >= 0", text)
        return value


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file.

    Raises:
        UserError: it cannot be read, is no text, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read the trace ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is no UTF-8 text; expected a CSV or JSONL trace (unpack compressed files)"
        ) from None
    lines = text.splitlines()
    if not lines:
        raise UserError(f"{path}: is empty; expected a CSV or JSONL trace")
    return lines


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[Place, dict[str, str]]]:
    """Yield (place, value per column) of every row; other columns are left alone.

    Raises:
        UserError: a column is missing, or a row has another number of fields than the header.
    """
    reader = csv.reader(read_lines(path))
    header = next(reader)
    missing = [name for name in columns if name not in header]
    if missing:
        raise UserError(
            f"{path}, line 1: expected the columns {', '.join(columns)}; missing: "
            f"{', '.join(missing)}"
        )
    positions = {name: header.index(name) for name in columns}
    for row in reader:
        place = Place(path, reader.line_num)
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {place.line}: expected {len(header)} fields, found {len(row)}"
            )
        yield place, {name: row[position] for name, position in positions.items()}


def check_order(place: Place, column: str, time: float, previous: float) -> None:
    """Raise ``UserError`` if a request arrives before the one above it."""
    if time < previous:
        raise UserError(
            f"{place.path}, line {place.line}, column {column}: arrives before the line above; "
            "sort the trace by time"
        )
