"""Mooncake traces: JSON lines with ``timestamp`` [ms], ``input_length`` and ``output_length``.

``hash_ids``, one for every 512 tokens of the prompt, say which prefixes are shared; files without
them are read as well. Which requests belong to one session is not recorded, so every request
arrives at its time. Source: Qin et al., "Mooncake: Trading More Storage for Less Computation",
FAST 2025, and the traces in its repository.
"""

from __future__ import annotations

from pathlib import Path

from vidur_ext.workload.trace_json import KEYS, JsonTrace, json_records
from vidur_ext.workload.trace_rows import SECOND, Trace

COLUMNS = KEYS
TIME_UNIT = "ms"
BLOCK_TOKENS = 512


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    requests = JsonTrace(path, SECOND["ms"], BLOCK_TOKENS)
    for line, record in json_records(path, COLUMNS):
        requests.add(line, record)
    return requests.trace()
