"""The four formats. Every reader returns (arrival [s], prompt tokens, output tokens) rows.

azure: ``TIMESTAMP,ContextTokens,GeneratedTokens`` (Azure public dataset 2023).
splitwise: ``arrived_at,num_prefill_tokens,num_decode_tokens``, seconds (as Vidur ships it).
burstgpt: ``Timestamp,...,Request tokens,Response tokens,...``, seconds (BurstGPT, 2024).
mooncake: JSONL with ``timestamp`` [ms], ``input_length``, ``output_length`` (Mooncake, FAST'25).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ppo_scheduler.errors import UserError
from vidur_ext.workload.traces.fields import Place, check_order, csv_rows, read_lines

Row = tuple[float, int, int]


def read_azure(path: Path) -> list[Row]:
    """Read timestamps such as ``2023-11-16 18:15:46.6805900``; time 0 is the first of them."""
    rows: list[Row] = []
    first: datetime | None = None
    previous = 0.0
    for place, cells in csv_rows(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        moment, fraction = _moment(place, cells["TIMESTAMP"])
        first = first or moment
        time = (moment - first).total_seconds() + fraction
        check_order(place, "TIMESTAMP", time, previous)
        previous = time
        prompt = place.tokens("ContextTokens", cells["ContextTokens"])
        rows.append((time, prompt, place.tokens("GeneratedTokens", cells["GeneratedTokens"])))
    return rows


def _moment(place: Place, text: str) -> tuple[datetime, float]:
    """Split a timestamp into whole seconds and the fraction, which may have seven digits."""
    whole, _, fraction = text.partition(".")
    try:
        return datetime.strptime(whole, "%Y-%m-%d %H:%M:%S"), float(f"0.{fraction or 0}")
    except ValueError:
        raise place.error("TIMESTAMP", "a time like 2023-11-16 18:15:46.68", text) from None


def read_splitwise(path: Path) -> list[Row]:
    """Read seconds and token counts."""
    return _read_seconds(path, "arrived_at", "num_prefill_tokens", "num_decode_tokens", 1)


def read_burstgpt(path: Path) -> list[Row]:
    """Read seconds and token counts; failed requests (no response tokens) are left out."""
    rows = _read_seconds(path, "Timestamp", "Request tokens", "Response tokens", 0)
    return [row for row in rows if row[2] > 0]


def _read_seconds(path: Path, time: str, prompt: str, output: str, least: int) -> list[Row]:
    rows: list[Row] = []
    previous = 0.0
    for place, cells in csv_rows(path, (time, prompt, output)):
        arrival = place.seconds(time, cells[time])
        check_order(place, time, arrival, previous)
        previous = arrival
        prompt_tokens = place.tokens(prompt, cells[prompt])
        rows.append((arrival, prompt_tokens, place.tokens(output, cells[output], least)))
    return rows


def read_mooncake(path: Path) -> list[Row]:
    """Read one JSON object per line; prefix hashes are not used."""
    rows: list[Row] = []
    previous = 0.0
    for number, line in enumerate(read_lines(path), start=1):
        place = Place(path, number)
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise place.error(str(error.colno), f"a JSON object ({error.msg})", line[:40]) from None
        if not isinstance(record, dict):
            raise place.error("1", "a JSON object", line[:40])
        for key in ("timestamp", "input_length", "output_length"):
            if key not in record:
                raise place.error(key, "this key in the object", sorted(record))
        arrival = place.seconds("timestamp", record["timestamp"]) / 1e3
        check_order(place, "timestamp", arrival, previous)
        previous = arrival
        prompt = place.tokens("input_length", record["input_length"])
        rows.append((arrival, prompt, place.tokens("output_length", record["output_length"])))
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {
    "azure": read_azure,
    "splitwise": read_splitwise,
    "burstgpt": read_burstgpt,
    "mooncake": read_mooncake,
}

_SIGNS = {"azure": "ContextTokens", "splitwise": "num_prefill_tokens", "burstgpt": "Request tokens"}


def detect_format(path: Path) -> str:
    """Return the format that the first line shows.

    Raises:
        UserError: no known format begins like this.
    """
    first = read_lines(path)[0]
    if first.lstrip().startswith("{"):
        return "mooncake"
    for name, sign in _SIGNS.items():
        if sign in first.split(","):
            return name
    raise UserError(
        f"{path}, line 1: no known trace begins like {first[:60]!r}; expected Azure, Splitwise or "
        "BurstGPT CSV with its header, or Mooncake JSONL (docs/workloads.md)"
    )
