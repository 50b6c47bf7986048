"""What request streams cost, and with a trace at hand, how close the synthetic lengths are."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fit_lengths import fit_errors
from harness import Figures, run_benchmark_with_options

from ppo_scheduler.seeding import Purpose
from vidur_ext.config.sections import PRESETS
from vidur_ext.workload.session_stream import SessionStream
from vidur_ext.workload.synthetic import SyntheticStream
from vidur_ext.workload.trace_files import load_trace, trace_formats
from vidur_ext.workload.trace_stream import TraceStream

_ROWS = 19_366
_NO_LIMIT = 2**31 - 1
_EPISODE = 2048


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--trace``."""
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="AzureLLMInferenceTrace_conv.csv: also print the errors of the fitted lengths",
    )


def measure(arguments: argparse.Namespace) -> Figures:
    """Return costs [ms, requests/s] and, with ``--trace``, the fit's errors."""
    repeats = 3 if arguments.quick else 20
    stream = SyntheticStream(0, Purpose.WORKLOAD, 18.0, "gamma", 2.0, 0.2, 8192)
    bulk = 20_000 if arguments.quick else 200_000
    figures: Figures = {
        f"synthetic_window_of_{_EPISODE}_ms": _ms(lambda: stream.window(10**6, _EPISODE), repeats),
        "synthetic_requests_per_second": 1e3 * bulk / _ms(lambda: stream.window(0, bulk), 3),
    }
    for preset in PRESETS:
        sessions = SessionStream(preset, 0, Purpose.WORKLOAD, 10.0, "poisson", 1.0, _NO_LIMIT)
        window = _ms(partial(sessions.window, 10**6, _EPISODE), repeats)
        figures[f"{preset}_window_of_{_EPISODE}_ms"] = window
    with tempfile.TemporaryDirectory() as folder:
        for name, trace_format in trace_formats().items():
            header, line = SAMPLES[name]
            path = Path(folder) / name
            path.write_text(header + "".join(map(line, range(_ROWS))), encoding="utf-8")
            figures[f"read_{_ROWS}_rows_{name}_ms"] = _ms(partial(trace_format.read, path), 3)
        recorded = TraceStream(
            load_trace(Path(folder) / "splitwise", "auto", _NO_LIMIT).table, True
        )
    window = _ms(lambda: recorded.window(10**6, _EPISODE), repeats)
    figures[f"trace_window_of_{_EPISODE}_ms"] = window
    if arguments.trace is not None:
        table = load_trace(arguments.trace, "auto", _NO_LIMIT).table
        figures.update({f"fit_{name}": value for name, value in fit_errors(table).items()})
    return figures


def _ms(work: Callable[[], object], repeats: int) -> float:
    """Return the shortest of several runs [ms]."""
    durations = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return 1e3 * min(durations)


_CLOCK = "2023-11-16 {:02}:{:02}:{:02}.6805900"
SAMPLES: dict[str, tuple[str, Callable[[int], str]]] = {
    "azure": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n",
        lambda i: f"{_CLOCK.format(i // 3600, i // 60 % 60, i % 60)},1020,129\n",
    ),
    "bailian": (
        "",
        lambda i: (
            f'{{"chat_id": {i}, "parent_chat_id": -1, "timestamp": {i * 0.18:.3f}, '
            '"input_length": 1020, "output_length": 129, "type": "text", "turn": 1, '
            f'"hash_ids": {[64 * i + block for block in range(64)]}}}\n'
        ),
    ),
    "burstgpt": (
        "Timestamp,Session ID,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
        lambda i: f"{i},{i % 5000},ChatGPT,{472 * (1 + i // 5000)},18,490,Conversation log\n",
    ),
    "canary": (
        "arrived_at,num_prefill_tokens,num_decode_tokens,session_id,block_hash_ids\n",
        lambda i: f"{i * 0.18},32,129,{i % 5000},{2 * i}|{2 * i + 1}\n",
    ),
    "mooncake": (
        "",
        lambda i: (
            f'{{"timestamp": {i}, "input_length": 1020, "output_length": 129, '
            f'"hash_ids": [{2 * i}, {2 * i + 1}]}}\n'
        ),
    ),
    "splitwise": (
        "arrived_at,num_prefill_tokens,num_decode_tokens\n",
        lambda i: f"{i * 0.18},1020,129\n",
    ),
    "tracelab": (
        "id,input_len,output_len,arrival_time,round_idx,tool_wait_after_ms,prefix_len\n",
        lambda i: f"{i // 50},530,205,{i // 50}.0,{i % 50},285.0,{735 * (i % 50)}\n",
    ),
}
"""First line of a file of each format, and line i of it."""


if __name__ == "__main__":
    run_benchmark_with_options("request streams", add_options, measure)
