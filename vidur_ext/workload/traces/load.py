"""From a trace file to its requests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.token_limit import limit_tokens
from vidur_ext.workload.traces.detect import READERS, choose_format
from vidur_ext.workload.traces.text_file import file_status
from vidur_ext.workload.traces.values import Trace


def load_trace(path: Path, trace_format: str, max_tokens: int) -> Trace:
    """Read a trace; requests longer than ``max_tokens`` are cut and counted in a note.

    Args:
        trace_format: ``auto``, ``azure``, ``splitwise``, ``burstgpt`` or ``mooncake``.

    Raises:
        UserError: naming file, line, column and what was expected there.
    """
    status = file_status(path)
    return _load(path, status.st_mtime_ns, status.st_size, trace_format, max_tokens)


@lru_cache(maxsize=2)
def _load(path: Path, mtime_ns: int, size: int, trace_format: str, max_tokens: int) -> Trace:
    """Read once per process: a comparison asks for the same file for every run.

    ``mtime_ns`` and ``size`` are part of the key, so a changed file is read again.
    """
    trace = READERS[choose_format(path, trace_format)](path)
    table = trace.table
    prefill, decode, num_cut = limit_tokens(table.prefill_tokens, table.decode_tokens, max_tokens)
    if num_cut == 0:
        return trace
    note = f"{num_cut} of {len(table)} requests were cut to max_tokens={max_tokens}"
    return Trace(RequestTable(table.arrived_at, prefill, decode), (*trace.notes, note))
