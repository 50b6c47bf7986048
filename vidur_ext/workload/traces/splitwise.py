"""Splitwise traces as Vidur ships them: ``arrived_at,num_prefill_tokens,num_decode_tokens``.

Times are seconds.
"""

from __future__ import annotations

from pathlib import Path

from vidur_ext.workload.trace_rows import Trace, TraceRows, csv_rows, parse_seconds, parse_tokens

COLUMNS = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
TIME_UNIT = "s"


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows = TraceRows(path, COLUMNS[0])
    for line, (arrival, prompt, output) in csv_rows(path, COLUMNS):
        rows.add(
            line,
            parse_seconds(path, line, COLUMNS[0], arrival),
            parse_tokens(path, line, COLUMNS[1], prompt),
            parse_tokens(path, line, COLUMNS[2], output),
        )
    return rows.trace()
