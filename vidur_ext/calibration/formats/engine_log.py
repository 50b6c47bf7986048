"""Requests as vLLM's engine stamps them, in the JSON lines of LLMServingSim's ``bench``.

``arrival_time`` is of the front end's clock, ``queued_ts``, ``first_token_ts`` and
``last_token_ts`` of the engine's, all in seconds; ``input_toks`` and ``output_toks`` are tokens.
The two clocks are laid over each other where the request that was quickest from front end to
engine took no time; what every request takes there is not in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vidur_ext.calibration.formats.request_rows import RequestRows
from vidur_ext.calibration.formats.values import Place, amount, count, moment
from vidur_ext.calibration.measurements import Requests
from vidur_ext.workload.trace_json import json_records

NAMES = ARRIVAL, QUEUED, FIRST, LAST, PROMPT, OUTPUT = (
    "arrival_time", "queued_ts", "first_token_ts", "last_token_ts", "input_toks", "output_toks",
)  # fmt: skip


class _Stamps(NamedTuple):
    line: int
    arrival: float
    queued: float
    first: float
    last: float
    prompt: int
    output: int


def read(path: Path) -> Requests:
    """Read a log of requests.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    stamps = []
    for line, record in json_records(path, NAMES):

        def at(name: str, line: int = line) -> Place:
            return Place(path, f"line {line}, column {name}")

        stamps.append(
            _Stamps(
                line,
                moment(at(ARRIVAL), record[ARRIVAL]),
                moment(at(QUEUED), record[QUEUED]),
                moment(at(FIRST), record[FIRST]),
                moment(at(LAST), record[LAST]),
                count(at(PROMPT), record[PROMPT], 1),
                count(at(OUTPUT), record[OUTPUT], 1),
            )
        )
    offset = min((one.queued - one.arrival for one in stamps), default=0.0)
    rows = RequestRows(path)
    for one in stamps:
        arrival = one.arrival + offset
        place = Place(path, f"line {one.line}, column {FIRST}")
        ttft = amount(place, one.first - arrival, f"a time after {ARRIVAL} and {QUEUED}, by")
        rows.add(f"line {one.line}", arrival, one.prompt, one.output, ttft, one.last - arrival)
    return rows.requests()
