"""Iterations: a CSV with a row for each.

Columns: ``decode_requests``, requests that decode one token; ``prefill_tokens``, tokens of prompts;
``kv_tokens_mean`` or ``kv_tokens_sum``, the KV tokens of the decoding requests, the new ones
included; ``step_ms``, how long it took. ``batch_tokens``, the sum of the first two, may stand in
place of one of them. The prompt's tokens count as one chunk with nothing cached.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidur_ext.calibration.formats.values import Place, amount, count, parsed
from vidur_ext.calibration.measurements import Iterations
from vidur_ext.workload.trace_rows import csv_rows, line_error, read_text

BATCH, DECODES, PREFILL = "batch_tokens", "decode_requests", "prefill_tokens"
MEAN, SUM = "kv_tokens_mean", "kv_tokens_sum"
STEP = "step_ms"
NAMES = (DECODES, PREFILL, BATCH, MEAN, SUM, STEP)


def read(path: Path) -> Iterations:
    """Read a file of iterations.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    columns = _columns(path)
    rows = [
        _row(path, line, dict(zip(columns, map(parsed, fields), strict=True)))
        for line, fields in csv_rows(path, columns)
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Iterations(path, *table.T)


def _columns(path: Path) -> tuple[str, ...]:
    """Return the columns to read, which ``csv_rows`` then finds or misses."""
    header = {name.strip(' "\r') for name in read_text(path).partition("\n")[0].split(",")}
    sizes = [name for name in (DECODES, PREFILL, BATCH) if name in header]
    if len(sizes) < 2:
        missing = [name for name in (DECODES, PREFILL, BATCH) if name not in header]
        raise line_error(
            path,
            1,
            f"expected two of the columns {DECODES}, {PREFILL} and {BATCH}, which say how much of "
            f"a batch is decoded; missing: {', '.join(missing)}",
        )
    return (*sizes, MEAN if MEAN in header and SUM not in header else SUM, STEP)


def _row(path: Path, line: int, values: dict[str, float | str]) -> tuple[float, ...]:
    """Return decoding requests, their mean KV tokens, prompt tokens and seconds of a row."""

    def at(column: str) -> Place:
        return Place(path, f"line {line}, column {column}")

    sizes = {
        name: count(at(name), values[name], 0) for name in (DECODES, PREFILL) if name in values
    }
    if BATCH in values:
        tokens = count(at(BATCH), values[BATCH], 1)
        rest = tokens - sum(sizes.values())
        if rest < 0 or (len(sizes) == 2 and rest != 0):
            raise at(BATCH).error(
                f"{tokens} tokens are not {DECODES} + {PREFILL}: every decoding request adds one"
            )
        sizes = {DECODES: rest, PREFILL: rest} | sizes
    decodes, prefill = sizes[DECODES], sizes[PREFILL]
    if decodes + prefill == 0:
        raise at(PREFILL).error("the batch is empty; leave such rows out")
    kv = SUM if SUM in values else MEAN
    mean = 0.0
    if decodes:
        mean = amount(at(kv), values[kv], "a number of KV tokens")
        mean = mean / decodes if kv == SUM else mean
        if mean < 1.0:
            raise at(kv).error(
                f"{decodes} decoding requests have {mean:g} KV tokens each; every one has at least "
                "its new one"
            )
    step_ms = amount(at(STEP), values[STEP], "a time in ms")
    return float(decodes), mean, float(prefill), step_ms * 1e-3
