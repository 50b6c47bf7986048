"""Reading a trace file as text, or saying why it is none."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ppo_scheduler.errors import UserError
from vidur_ext.workload.traces.errors import file_error, line_error

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
        raise file_error(path, "is no regular file; give a trace on disk")
    return status


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark.

    Raises:
        UserError: the file cannot be read, or it is empty, packed, or not text.
    """
    file_status(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise file_error(path, f"cannot be read ({error.strerror})") from error
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
        raise file_error(path, "is empty; expected a trace (a CSV with its header, or JSONL)")
    return text


def _not_text(path: Path, data: bytes, position: int) -> UserError:
    line = data.count(b"\n", 0, position) + 1
    return line_error(path, line, f"expected UTF-8 text, found the byte 0x{data[position]:02x}")


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, values of ``columns``) for every row below the header; blank lines are skipped.

    Raises:
        UserError: a column is missing or there twice, a row has another number of fields than the
            header, or the quoting is broken.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        positions = _positions(path, header, columns)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                text = f"expected {len(header)} fields ({','.join(header)}), found {len(row)}"
                raise line_error(path, reader.line_num, text)
            yield reader.line_num, [row[position] for position in positions]
    except csv.Error as error:
        raise line_error(path, reader.line_num, f"is not valid CSV: {error}") from None


def _positions(path: Path, header: list[str], columns: tuple[str, ...]) -> list[int]:
    missing = [name for name in columns if name not in header]
    if missing:
        raise line_error(
            path,
            1,
            f"expected the columns {', '.join(columns)}; missing: {', '.join(missing)}; found: "
            f"{','.join(header)[:200]}",
        )
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise line_error(path, 1, f"the column {twice[0]} is there twice; remove one")
    return [header.index(name) for name in columns]
