"""BurstGPT traces: ``Timestamp,…,Request tokens,Response tokens,…``.

Times are seconds. Newer releases add ``Session ID`` and ``Elapsed time``; columns that are not
needed are left alone. Rows without response tokens are failed requests. Source: Wang et al.,
"BurstGPT: A Real-world Workload Dataset to Optimize LLM Serving Systems", 2024, arXiv:2401.17644,
and the README of its repository.
"""

from __future__ import annotations

from pathlib import Path

from vidur_ext.workload.trace_rows import Trace, TraceRows, csv_rows, parse_seconds, parse_tokens

COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
TIME_UNIT = "s"


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first answered request. Failed requests are counted in a note.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows = TraceRows(path, COLUMNS[0])
    failed = 0
    for line, (arrival, prompt, output) in csv_rows(path, COLUMNS):
        seconds = parse_seconds(path, line, COLUMNS[0], arrival)
        output_tokens = parse_tokens(path, line, COLUMNS[2], output, least=0)
        if output_tokens == 0:
            rows.arrive(line, seconds)
            failed += 1
            continue
        rows.add(line, seconds, parse_tokens(path, line, COLUMNS[1], prompt), output_tokens)
    return rows.trace(*([f"{failed} failed requests were skipped"] if failed else []))
