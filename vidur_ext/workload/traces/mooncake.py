"""Mooncake traces: JSON lines with ``timestamp`` [ms], ``input_length`` and ``output_length``.

``hash_ids`` name blocks of shared prefixes; prefix caching is not simulated, so they are left
alone. Source: Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025, and
the traces in its repository.
"""

from __future__ import annotations

import json
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

COLUMNS = ("timestamp", "input_length", "output_length")


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows = TraceRows(path, COLUMNS[0])
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        record = _record(path, line, text)
        time = record[COLUMNS[0]]
        milliseconds = float(time) if _is_number(time) else -1.0
        rows.add(
            line,
            check_time(path, line, COLUMNS[0], milliseconds, time) / 1e3,
            _tokens(path, line, COLUMNS[1], record[COLUMNS[1]]),
            _tokens(path, line, COLUMNS[2], record[COLUMNS[2]]),
        )
    return rows.trace()


def _record(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text, parse_int=_bounded)
    except json.JSONDecodeError as error:
        expected = f"a JSON object ({error.msg})"
        raise value_error(path, line, f"{error.colno} (character)", expected, text) from None
    except RecursionError:
        raise line_error(path, line, "expected a flat JSON object, found deep nesting") from None
    if not isinstance(record, dict):
        raise line_error(path, line, f"expected a JSON object, found {text.strip()[:40]!r}")
    missing = [key for key in COLUMNS if key not in record]
    if missing:
        raise line_error(
            path,
            line,
            f"expected the keys {', '.join(COLUMNS)}; missing: {', '.join(missing)}; found: "
            f"{', '.join(record)[:200]}",
        )
    return record


def _bounded(digits: str) -> int | float:
    """Return a JSON integer; what is too long for any count or time becomes infinite."""
    return int(digits) if len(digits) <= 18 else float("inf")


def _tokens(path: Path, line: int, key: str, found: object) -> int:
    value = found if isinstance(found, int) and not isinstance(found, bool) else -1
    return check_tokens(path, line, key, value, found)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
