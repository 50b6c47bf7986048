"""Azure LLM inference traces: ``TIMESTAMP,ContextTokens,GeneratedTokens``.

Timestamps are dates such as ``2023-11-16 18:15:46.6805900`` (2023) or
``2024-05-10 00:00:00.009930+00:00`` (2024). Source: Azure public dataset,
AzureLLMInferenceDataset2023.md and AzureLLMInferenceDataset2024.md.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

from vidur_ext.workload.trace_rows import Trace, TraceRows, csv_rows, parse_tokens, value_error

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
TIME_UNIT = None
"""Dates have no other."""
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))?", re.ASCII
)
_EXPECTED = "a time like 2023-11-16 18:15:46.6805900"
_EPOCH = datetime(1970, 1, 1)
_NANOSECONDS = 1_000_000_000


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows = TraceRows(path, COLUMNS[0])
    first: int | None = None
    for line, (timestamp, prompt, output) in csv_rows(path, COLUMNS):
        moment = _nanoseconds(path, line, timestamp)
        first = moment if first is None else first
        rows.add(
            line,
            # Differences are taken between integers: as float64 seconds since 1970 the seventh
            # decimal would be lost.
            (moment - first) / _NANOSECONDS,
            parse_tokens(path, line, COLUMNS[1], prompt),
            parse_tokens(path, line, COLUMNS[2], output),
        )
    return rows.trace()


def _nanoseconds(path: Path, line: int, text: str) -> int:
    """Return a timestamp in ns since 1970; without an offset it is taken as UTC."""
    match = _DATE.fullmatch(text.strip())
    if match is None:
        raise value_error(path, line, COLUMNS[0], _EXPECTED, text)
    day, clock, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day} {clock}")
        if sign is not None:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError):  # no date, or none of the years 1 to 9999 in UTC
        raise value_error(path, line, COLUMNS[0], _EXPECTED, text) from None
    whole = (moment - _EPOCH) // timedelta(seconds=1)
    return whole * _NANOSECONDS + int((fraction or "0").ljust(9, "0"))
