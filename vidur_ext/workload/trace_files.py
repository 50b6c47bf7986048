"""From a trace file, whatever its format, to its requests."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.config.plugins import module_names
from vidur_ext.workload import traces
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.trace_rows import (
    SECOND,
    TimeUnit,
    Trace,
    TraceFormat,
    file_error,
    file_status,
    line_error,
    read_text,
)

OWN_UNIT = "auto"


def choose_format(path: Path, trace_format: str) -> TraceFormat:
    """Return the format to read ``path`` with; ``auto`` looks at its first line.

    A line that names only some of a format's columns counts as that format, whose reader then says
    which are missing.

    Raises:
        UserError: the format is unknown, or no known one begins like the file.
    """
    formats = trace_formats()
    if trace_format in formats:
        return formats[trace_format]
    if trace_format != "auto":
        raise UserError(
            f"trace_format={trace_format!r}: expected auto or one of {', '.join(formats)}"
        )
    first_line = read_text(path).partition("\n")[0].strip()
    named = _names(first_line)
    known = {name: len(named.intersection(one.COLUMNS)) for name, one in formats.items()}
    best = max(known, key=lambda name: (known[name], -len(formats[name].COLUMNS)))
    if known[best] == 0:
        columns = "; ".join(f"{name}: {','.join(one.COLUMNS)}" for name, one in formats.items())
        raise line_error(
            path,
            1,
            f"expected the CSV header of a known trace, or JSON lines with its keys ({columns}); "
            f"found {first_line[:60]!r}",
        )
    return formats[best]


def trace_formats() -> dict[str, TraceFormat]:
    """Return the formats by name: the modules of ``workload.traces``."""
    names = module_names(traces.__name__)
    modules = {name: import_module(f"{traces.__name__}.{name}") for name in names}
    return {name: cast(TraceFormat, module) for name, module in modules.items()}


def _names(first_line: str) -> set[str]:
    """Return the columns of a CSV header, or the keys of a JSON object."""
    if first_line.startswith("{"):
        return set(re.findall(r'"([^"]*)"\s*:', first_line))
    return {name.strip(' "') for name in first_line.split(",")}


def load_trace(path: Path, trace_format: str, max_tokens: int, time_unit: str = OWN_UNIT) -> Trace:
    """Read a trace; requests longer than ``max_tokens`` are cut and counted in a note.

    Args:
        trace_format: ``auto``, or the name of a format.
        time_unit: of the time stamps; ``auto`` is the format's own.

    Raises:
        UserError: naming file, line, column and what was expected there.
    """
    status = file_status(path)
    version = (status.st_mtime_ns, status.st_size)
    return _load(path, version, trace_format, max_tokens, time_unit)


@lru_cache(maxsize=2)
def _load(
    path: Path, version: tuple[int, int], trace_format: str, max_tokens: int, time_unit: str
) -> Trace:
    """Read once per process: a comparison asks for the same file for every run.

    ``version``, the time and size of the file, is part of the key: a changed file is read again.
    """
    chosen = choose_format(path, trace_format)
    trace = chosen.read(path)
    table = trace.table.at_rate(_haste(path, chosen, trace.table, time_unit))
    limited, num_cut = table.limited(max_tokens)
    if num_cut == 0:
        return Trace(table, trace.notes)
    note = f"{num_cut} of {len(table)} requests were cut to max_tokens={max_tokens}"
    return Trace(limited, (*trace.notes, note))


def _haste(path: Path, chosen: TraceFormat, table: RequestTable, time_unit: str) -> float:
    """Return how much faster requests arrive than the format's own unit has it.

    Raises:
        UserError: dates have no unit; or what should be whole milliseconds looks like seconds.
    """
    own = chosen.TIME_UNIT
    if time_unit != OWN_UNIT:
        if own is None:
            raise file_error(
                path, "its time stamps are dates or have one unit only, which "
                f"workload.trace_time_unit={time_unit} cannot change: set it to auto"
            )  # fmt: skip
        return SECOND[cast(TimeUnit, time_unit)] / SECOND[own]
    if own == "ms" and not _whole(table.arrived_at * SECOND[own]):
        raise file_error(
            path,
            "its time stamps should be whole milliseconds but have fractions, as seconds have: "
            "say in which unit they are with workload.trace_time_unit, s or ms",
        )
    return 1.0


def _whole(numbers: NDArray[np.float64]) -> bool:
    return bool(np.all(np.abs(numbers - np.rint(numbers)) < 1e-4))
