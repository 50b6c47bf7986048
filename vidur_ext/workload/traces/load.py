"""From a trace file to a table of requests."""

from __future__ import annotations

from pathlib import Path

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable, fit_into
from vidur_ext.workload.traces.formats import READERS, detect_format


def load_trace(path: Path, trace_format: str, max_tokens: int) -> RequestTable:
    """Read a trace; requests longer than ``max_tokens`` are cut as synthetic ones are.

    Raises:
        UserError: naming file, line, column and what was expected there.
    """
    kind = detect_format(path) if trace_format == "auto" else trace_format
    rows = READERS[kind](path)
    if not rows:
        raise UserError(f"{path}: holds no requests below its header")
    table = RequestTable.from_rows(rows)
    prefill, decode = fit_into(table.prefill_tokens, table.decode_tokens, max_tokens)
    return RequestTable(table.arrived_at - table.arrived_at[0], prefill, decode)
