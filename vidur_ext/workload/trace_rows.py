"""Reading a trace file as text: its rows, its values and their order.

Errors name the file, the line, the column and what was expected.
"""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from ppo_scheduler.errors import UserError
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import Sessions

_SHOWN_CHARACTERS = 40


def file_error(path: Path, text: str) -> UserError:
    """Return the error about a file as a whole."""
    return UserError(f"{path}: {text}")


def line_error(path: Path, line: int, text: str) -> UserError:
    """Return the error about a line (counted from 1, the header included)."""
    return UserError(f"{path}, line {line}: {text}")


def column_error(path: Path, line: int, column: str, text: str) -> UserError:
    """Return the error about one column of a line."""
    return UserError(f"{path}, line {line}, column {column}: {text}")


def value_error(path: Path, line: int, column: str, expected: str, found: object) -> UserError:
    """Return the error about one value."""
    shown = repr(found)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}…"
    return column_error(path, line, column, f"expected {expected}, found {shown}")


_MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class Trace:
    """A recording: its requests, and what a reader of the run log should know about them."""

    table: RequestTable
    notes: tuple[str, ...] = ()


TimeUnit = Literal["s", "ms", "us", "ns"]
SECOND: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""How much of each unit is one second."""


class TraceFormat(Protocol):
    """What a module of ``workload.traces`` has: it reads the format of its name.

    Attributes:
        COLUMNS: of the CSV header, or keys of every JSON line, that a trace must have. A file whose
            first line has most of them is taken for this format; of two formats that know equally
            many, the one that needs fewer.
        TIME_UNIT: of the time stamps, as its publishers say; None where no other is possible.
    """

    COLUMNS: tuple[str, ...]
    TIME_UNIT: TimeUnit | None

    def read(self, path: Path) -> Trace:
        """Read a trace; time 0 is its first request.

        Raises:
            UserError: the file is malformed; the text says where.
        """


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

    def trace(
        self, *notes: str, prompts: Prompts | None = None, sessions: Sessions | None = None
    ) -> Trace:
        """Return the collected requests, the first arriving at time 0."""
        if not self._rows:
            raise file_error(self.path, "holds no request; expected at least one")
        first = self._rows[0][0]
        rows = [(seconds - first, prompt, output) for seconds, prompt, output in self._rows]
        table = RequestTable.from_rows(rows)
        return Trace(replace(table, prompts=prompts, sessions=sessions), notes)


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


_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstandard",
}


def file_status(path: Path) -> os.stat_result:
    """Return size and time of a trace file.

    Raises:
        UserError: there is no such file, or it is a folder or a device.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise file_error(path, "there is no such trace file; check workload.trace_file") from None
    except OSError as error:
        raise file_error(path, f"cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(status.st_mode):
        raise file_error(path, "is a folder; name the trace file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise file_error(path, "is no regular file; give a file on disk")
    return status


def read_bytes(path: Path) -> bytes:
    """Return the content of a trace file.

    Raises:
        UserError: it cannot be read.
    """
    file_status(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise file_error(path, f"cannot be read ({error.strerror})") from error


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark.

    Raises:
        UserError: the file cannot be read, or it is empty, packed, or not text.
    """
    data = read_bytes(path)
    for magic, kind in _ARCHIVES.items():
        if data.startswith(magic):
            raise file_error(path, f"is {kind}-compressed; unpack it and name the unpacked file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(path, data, error.start) from None
    if "\0" in text:
        raise _not_text(path, data, data.index(b"\0"))
    if not text.strip():
        raise file_error(path, "is empty; expected a CSV with its header, or JSON lines")
    return text


def _not_text(path: Path, data: bytes, position: int) -> UserError:
    line = data.count(b"\n", 0, position) + 1
    return line_error(path, line, f"expected UTF-8 text, found the byte 0x{data[position]:02x}")


def csv_rows(
    path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, values of ``columns``) for every row below the header; blank lines are skipped.

    The values of ``optional`` columns come behind them, empty where the file has no such column.

    Raises:
        UserError: a column is missing or there twice, a row has another number of fields than the
            header, or the quoting is broken.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        positions = _positions(path, header, columns, optional)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                text = f"expected {len(header)} fields ({','.join(header)}), found {len(row)}"
                raise line_error(path, reader.line_num, text)
            yield reader.line_num, ["" if at is None else row[at] for at in positions]
    except csv.Error as error:
        raise line_error(path, reader.line_num, f"is not valid CSV: {error}") from None


def _positions(
    path: Path, header: list[str], columns: tuple[str, ...], optional: tuple[str, ...]
) -> list[int | None]:
    """Return where columns stand; None for optional ones that are not there."""
    missing = [name for name in columns if name not in header]
    if missing:
        raise line_error(
            path,
            1,
            f"expected the columns {', '.join(columns)}; missing: {', '.join(missing)}; found: "
            f"{','.join(header)[:200]}",
        )
    twice = [name for name in (*columns, *optional) if header.count(name) > 1]
    if twice:
        raise line_error(path, 1, f"the column {twice[0]} is there twice; remove one")
    return [header.index(name) if name in header else None for name in (*columns, *optional)]
