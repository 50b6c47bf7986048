"""Traces in JSON lines: one object per request, with keys for its time and token counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidur_ext.workload.sessions import Sessions
from vidur_ext.workload.trace_identity import MOST_ID, HashedPrompts
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
HASHES = "hash_ids"


class JsonTrace:
    """Collects the requests of JSON lines: times, tokens and, if its lines have them, hash ids.

    Args:
        second: how much of the time stamps' unit is one second.
        block_tokens: of a block that has an id.
    """

    def __init__(self, path: Path, second: float, block_tokens: int) -> None:
        self._path, self._second = path, second
        self._rows = TraceRows(path, TIME)
        self._hashed = HashedPrompts(path, HASHES, block_tokens)
        self._first: tuple[int, bool] | None = None

    def add(self, line: int, record: dict[str, Any]) -> None:
        """Append the request of a line.

        Raises:
            UserError: a value is impossible; the text says which.
        """
        found = record[TIME]
        time = float(found) if is_number(found) else -1.0
        prompt = _tokens(self._path, line, PROMPT, record[PROMPT])
        self._rows.add(
            line,
            check_time(self._path, line, TIME, time, found) / self._second,
            prompt,
            _tokens(self._path, line, OUTPUT, record[OUTPUT]),
        )
        self._first = self._first or (line, HASHES in record)
        first, hashed = self._first
        if hashed != (HASHES in record):
            has = "has" if hashed else "has not"
            raise line_error(
                self._path, line, f"all lines have {HASHES} or none: line {first} {has}"
            )
        if hashed:
            self._hashed.add(line, prompt, self._ids(line, record[HASHES]))

    def trace(self, sessions: Sessions | None = None) -> Trace:
        """Return the collected requests, the first arriving at time 0."""
        hashed = self._first is not None and self._first[1]
        prompts = self._hashed.prompts() if hashed else None
        return self._rows.trace(prompts=prompts, sessions=sessions)

    def _ids(self, line: int, found: object) -> list[int | None]:
        if not isinstance(found, list):
            raise value_error(self._path, line, HASHES, "a list of ids", found)
        return [one if is_id(one) else None for one in found]


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


def is_number(value: object) -> bool:
    """Tell whether a JSON value is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_id(value: object) -> bool:
    """Tell whether a JSON value is a whole number from 0 that an int64 holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_ID
