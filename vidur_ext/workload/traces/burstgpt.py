"""BurstGPT traces: ``Timestamp,…,Request tokens,Response tokens,…``.

Times are seconds. Newer releases add ``Session ID`` (below 0: none); columns that are not needed
are left alone. Texts are not recorded: a turn whose prompt is longer than the last prompt of its
session and the answer together is taken to begin with both, any other to share nothing. Think times
are not recorded, so turns arrive when the file says. Rows without response tokens are failed
requests. Source: Wang et al., "BurstGPT: A Real-world Workload Dataset to
Optimize LLM Serving Systems", 2024, arXiv:2401.17644, and the README of its repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vidur_ext.workload.trace_identity import GrowingPrompts, OpenSessions
from vidur_ext.workload.trace_rows import Trace, TraceRows, csv_rows, parse_seconds, parse_tokens

COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
SESSION = "Session ID"
TIME_UNIT = "s"


class _Turn(NamedTuple):
    session: str | None
    prompt: int
    output: int


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first answered request. Failed requests are counted in a note.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows = TraceRows(path, COLUMNS[0])
    turns: list[_Turn] = []
    failed = 0
    for line, (arrival, prompt, output, session) in csv_rows(path, COLUMNS, (SESSION,)):
        seconds = parse_seconds(path, line, COLUMNS[0], arrival)
        output_tokens = parse_tokens(path, line, COLUMNS[2], output, least=0)
        if output_tokens == 0:
            rows.arrive(line, seconds)
            failed += 1
            continue
        prompt_tokens = parse_tokens(path, line, COLUMNS[1], prompt)
        rows.add(line, seconds, prompt_tokens, output_tokens)
        name = session.strip()
        named = bool(name) and not name.startswith("-")
        turns.append(_Turn(name if named else None, prompt_tokens, output_tokens))
    notes = [f"{failed} failed requests were skipped"] if failed else []
    if all(turn.session is None for turn in turns):
        return rows.trace(*notes)
    prompts, sessions = GrowingPrompts(), OpenSessions()
    for number, turn in enumerate(turns):
        key = number if turn.session is None else turn.session
        said = prompts.said(key)
        prompts.add(key, said if said < turn.prompt else 0, turn.prompt, turn.output)
        sessions.add(turn.session)
    return rows.trace(*notes, prompts=prompts.prompts(), sessions=sessions.sessions())
