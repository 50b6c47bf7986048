"""Requests in our own form: a CSV, or JSON lines with the same names.

``arrival_s`` [s, any clock], ``prompt_tokens``, ``output_tokens``, ``ttft_s`` and ``e2e_s``, the
seconds from the arrival to the first and to the last token.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidur_ext.calibration.formats.request_rows import RequestRows
from vidur_ext.calibration.formats.values import Place, amount, count, moment, parsed
from vidur_ext.calibration.measurements import Requests
from vidur_ext.workload.trace_json import json_records
from vidur_ext.workload.trace_rows import csv_rows, read_text

NAMES = ARRIVAL, PROMPT, OUTPUT, TTFT, E2E = (
    "arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "e2e_s",
)  # fmt: skip


def read(path: Path) -> Requests:
    """Read a log of requests.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    rows = RequestRows(path)
    for line, record in _records(path):

        def at(name: str, line: int = line) -> Place:
            return Place(path, f"line {line}, column {name}")

        rows.add(
            f"line {line}",
            moment(at(ARRIVAL), record[ARRIVAL]),
            count(at(PROMPT), record[PROMPT], 1),
            count(at(OUTPUT), record[OUTPUT], 1),
            amount(at(TTFT), record[TTFT], "a time in seconds"),
            amount(at(E2E), record[E2E], "a time in seconds"),
        )
    return rows.requests()


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if read_text(path).lstrip().startswith("{"):
        yield from json_records(path, NAMES)
        return
    for line, fields in csv_rows(path, NAMES):
        yield line, dict(zip(NAMES, map(parsed, fields), strict=True))
