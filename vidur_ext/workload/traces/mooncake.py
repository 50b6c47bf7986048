"""Mooncake traces: JSON lines with ``timestamp`` [ms], ``input_length`` and ``output_length``.

``hash_ids`` name blocks of shared prefixes; prefix caching is not simulated, so they are left
alone. Source: Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025, and
the traces in its repository.
"""

from __future__ import annotations

from pathlib import Path

from vidur_ext.workload.trace_json import KEYS, read_json_lines
from vidur_ext.workload.trace_rows import Trace

COLUMNS = KEYS
TIME_UNIT = "ms"


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    return read_json_lines(path, second=1e3)
