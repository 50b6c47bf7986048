"""Traces of Vidur's canary branch and of Frontier: Splitwise's columns, sessions and block ids.

Times are seconds. ``block_hash_ids`` are ``11|22``, one for every 16 tokens of the prompt; without
any, a prompt has nothing in common with others. A request without ``session_id`` is a session of
its own. Turns arrive when the file says: think times are not recorded.
"""

from __future__ import annotations

from pathlib import Path

from vidur_ext.workload.trace_identity import HashedPrompts, OpenSessions, parse_id
from vidur_ext.workload.trace_rows import Trace, TraceRows, csv_rows, parse_seconds, parse_tokens

COLUMNS = (
    "arrived_at", "num_prefill_tokens", "num_decode_tokens", "session_id", "block_hash_ids",
)  # fmt: skip
TIME_UNIT = "s"
BLOCK_TOKENS = 16


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows, sessions = TraceRows(path, COLUMNS[0]), OpenSessions()
    prompts = HashedPrompts(path, COLUMNS[4], BLOCK_TOKENS)
    for line, (arrival, prompt, output, session, hashes) in csv_rows(path, COLUMNS):
        tokens = parse_tokens(path, line, COLUMNS[1], prompt)
        rows.add(
            line,
            parse_seconds(path, line, COLUMNS[0], arrival),
            tokens,
            parse_tokens(path, line, COLUMNS[2], output),
        )
        sessions.add(session.strip() or None)
        if hashes.strip():
            prompts.add(line, tokens, [parse_id(one) for one in hashes.split("|")])
        else:
            prompts.add_unknown(tokens)
    return rows.trace(prompts=prompts.prompts(), sessions=sessions.sessions())
