"""TraceLab traces of coding agents: ``id,input_len,output_len,arrival_time,round_idx,…``.

A prompt is the first ``prefix_len`` tokens of what its session said before (the last prompt and the
answer to it) and ``input_len`` new ones. ``arrival_time`` [ms] is the session's, of which the first
round counts; every later round arrives ``tool_wait_after_ms`` after the answer before, as a closed
loop. How long people thought is not in these files. Source: the README of ``csv_export`` in
github.com/uw-syfi/TraceLab, and arXiv:2606.30560.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import NO_PREVIOUS, NOMINAL_TOKEN_S, Sessions
from vidur_ext.workload.trace_identity import GrowingPrompts
from vidur_ext.workload.trace_rows import (
    SECOND,
    Trace,
    check_tokens,
    csv_rows,
    file_error,
    parse_seconds,
    parse_tokens,
    value_error,
)

COLUMNS = ID, INPUT, OUTPUT, ARRIVAL, ROUND, WAIT, PREFIX = (
    "id", "input_len", "output_len", "arrival_time", "round_idx", "tool_wait_after_ms",
    "prefix_len",
)  # fmt: skip
TIME_UNIT = None


@dataclass
class _Round:
    session: int
    turn: int
    line: int
    previous: int
    think_s: float
    nominal_s: float
    prompt: int
    output: int
    wait_s: float


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rounds: list[_Round] = []
    last: dict[str, int] = {}
    prompts = GrowingPrompts()
    without_text = 0
    for line, values in csv_rows(path, COLUMNS):
        field = dict(zip(COLUMNS, values, strict=True))
        name = field[ID].strip()
        prefix = parse_tokens(path, line, PREFIX, field[PREFIX], least=0)
        fresh = parse_tokens(path, line, INPUT, field[INPUT])
        prompt = check_tokens(path, line, INPUT, prefix + fresh, f"{prefix} + {fresh}")
        output = parse_tokens(path, line, OUTPUT, field[OUTPUT])
        arrival = parse_seconds(path, line, ARRIVAL, field[ARRIVAL]) / SECOND["ms"]
        wait = parse_seconds(path, line, WAIT, field[WAIT]) / SECOND["ms"]
        at = last.get(name, NO_PREVIOUS)
        before = None if at == NO_PREVIOUS else rounds[at]
        turn = 0 if before is None else before.turn + 1
        if parse_tokens(path, line, ROUND, field[ROUND], least=0) != turn:
            after = "its first" if before is None else f"the one after line {before.line}"
            raise value_error(
                path, line, ROUND, f"{turn}, {after} of session {name!r}", field[ROUND]
            )
        if before is not None:
            arrival = before.nominal_s + before.output * NOMINAL_TOKEN_S + before.wait_s
        rounds.append(
            _Round(
                session=len(last) if before is None else before.session,
                turn=turn,
                line=line,
                previous=at,
                think_s=0.0 if before is None else before.wait_s,
                nominal_s=arrival,
                prompt=prompt,
                output=output,
                wait_s=wait,
            )
        )
        last[name] = len(rounds) - 1
        kept = min(prefix, prompts.said(name))
        without_text += kept < prefix
        prompts.add(name, kept, prompt, output)
    if not rounds:
        raise file_error(path, "holds no request; expected at least one")
    note = f"{without_text} prefixes were longer than what was said before: the rest is new text"
    return Trace(_table(rounds, prompts), (note,) if without_text else ())


def _table(rounds: list[_Round], prompts: GrowingPrompts) -> RequestTable:
    """Return the rounds in the order of their nominal arrivals."""
    nominal = np.array([one.nominal_s for one in rounds])
    order = np.argsort(nominal, kind="stable")
    place = np.empty(len(rounds), dtype=np.int64)
    place[order] = np.arange(len(rounds))
    ordered = [rounds[row] for row in order]
    previous = np.array([one.previous for one in ordered])
    return RequestTable(
        nominal[order] - nominal[order[0]],
        np.array([one.prompt for one in ordered]),
        np.array([one.output for one in ordered]),
        prompts.prompts(order),
        Sessions(
            np.array([one.session for one in ordered]),
            np.array([one.turn for one in ordered]),
            np.where(previous == NO_PREVIOUS, NO_PREVIOUS, place[previous]),
            np.array([one.think_s for one in ordered]),
        ),
    )
