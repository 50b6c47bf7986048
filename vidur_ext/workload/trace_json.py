"""Traces in JSON lines: one object per request, with keys for its time and token counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidur_ext.workload.trace_rows import (
    Trace,
    TraceRows,
    check_time,
    check_tokens,
    line_error,
    read_text,
    value_error,
)

TIME, PROMPT, OUTPUT = KEYS = ("timestamp", "input_length", "output_length")


def read_json_lines(path: Path, second: float, columns: tuple[str, ...] = KEYS) -> Trace:
    """Read a trace; time 0 is its first request.

    Args:
        second: how much of the time stamps' unit is one second.
        columns: keys that every line must have.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows = TraceRows(path, TIME)
    for line, record in json_records(path, columns):
        found = record[TIME]
        time = float(found) if _is_number(found) else -1.0
        rows.add(
            line,
            check_time(path, line, TIME, time, found) / second,
            _tokens(path, line, PROMPT, record[PROMPT]),
            _tokens(path, line, OUTPUT, record[OUTPUT]),
        )
    return rows.trace()


def json_records(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) for every line that is not blank.

    Raises:
        UserError: a line holds no JSON object, or one without some of the keys ``columns``.
    """
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            yield line, _record(path, line, text, columns)


_MOST_DIGITS = 19
"""Nanoseconds since 1970 have as many."""


def _record(path: Path, line: int, text: str, columns: tuple[str, ...]) -> dict[str, Any]:
    try:
        record = json.loads(text, parse_int=_bounded, object_pairs_hook=_each_once)
    except _Twice as twice:
        raise line_error(path, line, f"the key {twice} stands there twice") from None
    except json.JSONDecodeError as error:
        expected = f"a JSON object ({error.msg})"
        raise value_error(path, line, f"{error.colno} (character)", expected, text) from None
    except RecursionError:
        raise line_error(path, line, "expected a flat JSON object, found deep nesting") from None
    if not isinstance(record, dict):
        raise line_error(path, line, f"expected a JSON object, found {text.strip()[:40]!r}")
    missing = [key for key in columns if key not in record]
    if missing:
        raise line_error(
            path,
            line,
            f"expected the keys {', '.join(columns)}; missing: {', '.join(missing)}; found: "
            f"{', '.join(record)[:200]}",
        )
    return record


class _Twice(ValueError):
    """A key that an object has twice, of which Python would take the last without a word."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _bounded(digits: str) -> int | float:
    """Return a JSON integer; what is too long for any count or time becomes infinite."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float("inf")


def _tokens(path: Path, line: int, key: str, found: object) -> int:
    value = found if isinstance(found, int) and not isinstance(found, bool) else -1
    return check_tokens(path, line, key, value, found)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
