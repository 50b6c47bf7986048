"""Qwen Bailian traces: JSON lines with the keys of Mooncake's and those of a chat; time in seconds.

Chats and shared prefixes are not simulated, so their keys tell the format and are left alone.
Source: Wang et al., "KVCache Cache in the Wild", USENIX ATC 2025 (arXiv:2506.02634), and
github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
"""

from __future__ import annotations

from pathlib import Path

from vidur_ext.workload.trace_json import KEYS, read_json_lines
from vidur_ext.workload.trace_rows import Trace

COLUMNS = (*KEYS, "chat_id", "parent_chat_id", "turn")
TIME_UNIT = "s"


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    return read_json_lines(path, second=1.0, columns=COLUMNS)
