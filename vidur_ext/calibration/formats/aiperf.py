"""Requests as AIPerf exports them: ``profile_export.jsonl``, a record in each line.

Of ``metadata`` are read ``request_start_ns``, ``was_cancelled`` and ``benchmark_phase``, of
``metrics`` ``input_sequence_length``, ``output_sequence_length``, ``time_to_first_token`` and
``request_latency``, each a ``value`` with its ``unit``; ``error`` is null for requests that were
answered (AIPerf's docs/tutorials/working-with-profile-exports.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidur_ext.calibration.formats.request_rows import RequestRows
from vidur_ext.calibration.formats.values import Place, amount, count
from vidur_ext.calibration.measurements import Requests
from vidur_ext.workload.trace_json import json_records
from vidur_ext.workload.trace_rows import file_error, read_text

START = "request_start_ns"
PROMPT, OUTPUT = "input_sequence_length", "output_sequence_length"
TTFT, E2E = "time_to_first_token", "request_latency"
NAMES = ("metadata", "metrics", START, PROMPT, OUTPUT, TTFT, E2E)

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}


def read(path: Path) -> Requests:
    """Read an export. Requests that failed, were cancelled or warmed up are left out.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    if read_text(path).lstrip().partition("\n")[0].strip() == "{":
        raise file_error(
            path, "holds statistics of all requests; give AIPerf's profile_export.jsonl, a record "
            "in each line"
        )  # fmt: skip
    rows = RequestRows(path)
    for line, record in json_records(path, ("metadata", "metrics")):
        metadata = _object(Place(path, f"line {line}, metadata"), record["metadata"])
        if record.get("error") is not None or metadata.get("was_cancelled"):
            rows.skip("failed requests")
            continue
        if metadata.get("benchmark_phase", "profiling") != "profiling":
            rows.skip("warm-up requests")
            continue
        metrics = _object(Place(path, f"line {line}, metrics"), record["metrics"])

        def at(name: str, line: int = line) -> Place:
            return Place(path, f"line {line}, metrics.{name}")

        started = Place(path, f"line {line}, metadata.{START}")
        rows.add(
            f"line {line}",
            amount(started, metadata.get(START), "a time in ns") * 1e-9,
            count(at(PROMPT), _metric(at(PROMPT), metrics).get("value"), 1),
            count(at(OUTPUT), _metric(at(OUTPUT), metrics).get("value"), 1),
            _seconds(at(TTFT), metrics),
            _seconds(at(E2E), metrics),
        )
    return rows.requests()


def _object(place: Place, found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise place.wrong("an object", found)
    return found


def _metric(place: Place, metrics: dict[str, Any]) -> dict[str, Any]:
    name = place.where.rpartition(".")[2]
    if name not in metrics:
        raise place.error("is missing; AIPerf measures single tokens with --streaming")
    return _object(place, metrics[name])


def _seconds(place: Place, metrics: dict[str, Any]) -> float:
    metric = _metric(place, metrics)
    unit = metric.get("unit")
    if unit not in _SECONDS:
        raise place.wrong(f"a unit of {', '.join(_SECONDS)}", unit)
    return amount(place, metric.get("value"), f"a time in {unit}") * _SECONDS[unit]
