"""From a file of measurements, whatever its format, to what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Protocol, cast

from vidur_ext.calibration.formats import aiperf, engine_log, iterations, requests, vllm_bench
from vidur_ext.calibration.measurements import Measured
from vidur_ext.workload.trace_rows import line_error, read_text

FormatName = Literal["iterations", "requests", "engine_log", "vllm_bench", "aiperf"]


class _Format(Protocol):
    """A module of ``formats``; ``NAMES`` are the columns or keys by which its files are known."""

    NAMES: tuple[str, ...]

    def read(self, path: Path) -> Measured:
        """Read a file of the format."""


_FORMATS = {
    "iterations": cast(_Format, iterations),
    "requests": cast(_Format, requests),
    "engine_log": cast(_Format, engine_log),
    "vllm_bench": cast(_Format, vllm_bench),
    "aiperf": cast(_Format, aiperf),
}


def read_measurements(path: Path, format_name: FormatName | None = None) -> Measured:
    """Read a file.

    Args:
        format_name: None looks at its names: the columns of a CSV, the keys of JSON.

    Raises:
        UserError: its format is unknown, or it is malformed; the text says where.
    """
    return (_recognized(path) if format_name is None else _FORMATS[format_name]).read(path)


def _recognized(path: Path) -> _Format:
    """Return the format of which the file has most names."""
    text = read_text(path).lstrip()
    first = text.partition("\n")[0].strip()
    if first.startswith("{"):
        names = set(re.findall(r'"([^"]*)"\s*:', text if first == "{" else first))
    else:
        names = {name.strip(' "') for name in first.split(",")}
    known = {name: len(names.intersection(one.NAMES)) for name, one in _FORMATS.items()}
    best = max(known, key=lambda name: known[name])
    if known[best] == 0:
        formats = "; ".join(f"{name}: {', '.join(one.NAMES)}" for name, one in _FORMATS.items())
        raise line_error(
            path,
            1,
            f"expected the columns or JSON keys of measurements ({formats}); found {first[:60]!r}",
        )
    return _FORMATS[best]
