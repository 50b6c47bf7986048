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
from vidur_ext.workload.synthetic import SyntheticStream
from vidur_ext.workload.trace_stream import TraceStream
from vidur_ext.workload.traces import azure, burstgpt, mooncake, splitwise
from vidur_ext.workload.traces.load import load_trace
from vidur_ext.workload.traces.rows import Trace

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
    with tempfile.TemporaryDirectory() as folder:
        for name, (read, line) in _FORMATS.items():
            path = Path(folder) / name
            path.write_text(_HEADERS[name] + "".join(map(line, range(_ROWS))), encoding="utf-8")
            figures[f"read_{_ROWS}_rows_{name}_ms"] = _ms(partial(read, path), 3)
        recorded = TraceStream(splitwise.read(Path(folder) / "splitwise").table, repeat=True)
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


_Line = Callable[[int], str]
_FORMATS: dict[str, tuple[Callable[[Path], Trace], _Line]] = {
    "azure": (
        azure.read,
        lambda i: f"2023-11-16 {i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}.6805900,1020,129\n",
    ),
    "splitwise": (splitwise.read, lambda i: f"{i * 0.18},1020,129\n"),
    "burstgpt": (burstgpt.read, lambda i: f"{i},ChatGPT,472,18,490,Conversation log\n"),
    "mooncake": (
        mooncake.read,
        lambda i: f'{{"timestamp": {i}, "input_length": 1020, "output_length": 129}}\n',
    ),
}
_HEADERS = {
    "azure": ",".join(azure.COLUMNS) + "\n",
    "splitwise": ",".join(splitwise.COLUMNS) + "\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
    "mooncake": "",
}


if __name__ == "__main__":
    run_benchmark_with_options("request streams", add_options, measure)
