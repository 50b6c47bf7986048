"""From a trace file, whatever its format, to its requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable, limit_tokens
from vidur_ext.workload.traces import azure, burstgpt, mooncake, splitwise
from vidur_ext.workload.traces.rows import Trace, file_status, line_error, read_text

READERS: dict[str, Callable[[Path], Trace]] = {
    "azure": azure.read,
    "splitwise": splitwise.read,
    "burstgpt": burstgpt.read,
    "mooncake": mooncake.read,
}
_CSV_COLUMNS = {
    "azure": azure.COLUMNS,
    "splitwise": splitwise.COLUMNS,
    "burstgpt": burstgpt.COLUMNS,
}


def choose_format(path: Path, trace_format: str) -> str:
    """Return the format to read ``path`` with; ``auto`` looks at its first line.

    A CSV header that has only some of a format's columns counts as that format, whose reader then
    says which are missing.

    Raises:
        UserError: the format is unknown, or no known one begins like the file.
    """
    if trace_format in READERS:
        return trace_format
    if trace_format != "auto":
        raise UserError(
            f"trace_format={trace_format!r}: expected auto or one of {', '.join(READERS)}"
        )
    first_line = read_text(path).partition("\n")[0].strip()
    if first_line.startswith("{"):
        return "mooncake"
    header = {name.strip(' "') for name in first_line.split(",")}
    known = {name: len(header.intersection(columns)) for name, columns in _CSV_COLUMNS.items()}
    best = max(known, key=lambda name: known[name])
    if known[best] == 0:
        raise line_error(path, 1, f"{_expectation()}; found {first_line[:60]!r}")
    return best


def _expectation() -> str:
    headers = "; ".join(f"{name}: {','.join(columns)}" for name, columns in _CSV_COLUMNS.items())
    keys = ",".join(mooncake.KEYS)
    return f"expected the CSV header of a known trace ({headers}) or JSON lines (mooncake: {keys})"


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
