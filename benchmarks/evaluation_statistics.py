"""What judging costs: statistics and report of 13 schedulers x 16 workloads x 2048 requests.

The runs are drawn at random, so no simulation is timed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from harness import run_benchmark

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.report.writer import write_report
from vidur_ext.evaluation.run_result import RunResult, Served
from vidur_ext.workload.request_table import RequestTable

_SCHEDULERS = 13
_SEEDS = 16
_SAMPLES = 500
_REPLICAS = 4


def _run(scheduler: int, seed: int, requests: int) -> RunResult:
    world = np.random.default_rng([seed])
    own = np.random.default_rng([seed, scheduler])
    arrived = np.cumsum(world.exponential(1 / 24, requests))
    decode = world.integers(1, 400, requests)
    first = arrived + own.lognormal(-1.5, 0.6, requests)
    return RunResult.of(
        f"scheduler_{scheduler}",
        seed,
        RequestTable(arrived, world.integers(1, 2000, requests), decode),
        Served(
            arrived,
            arrived,
            first,
            first + 0.03 * (decode - 1),
            own.integers(0, _REPLICAS, requests),
            np.zeros(requests, dtype=np.int64),
            np.zeros(requests, dtype=np.int64),
        ),
        num_replicas=_REPLICAS,
        oracle=False,
        speed=500.0,
    )


def _measure(quick: bool) -> dict[str, float]:
    requests = 200 if quick else 2048
    names = [f"scheduler_{i}" for i in range(_SCHEDULERS)]
    runs = [_run(i, seed, requests) for i in range(_SCHEDULERS) for seed in range(_SEEDS)]
    started = time.perf_counter()
    comparison = Comparison.from_runs(
        runs,
        names,
        list(range(_SEEDS)),
        names[0],
        engine="compiled",
        slo_ttft_s=0.5,
        slo_tbt_s=0.05,
        warmup_fraction=0.1,
        bootstrap_samples=_SAMPLES,
        rng=np.random.default_rng(0),
    )
    compared = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_report(comparison, runs, Path(folder), {})
        written = time.perf_counter()
        page_bytes = paths.html.stat().st_size
    return {
        "requests_per_run": requests,
        "statistics_s": compared - started,
        "report_s": written - compared,
        "page_kb": page_bytes / 1000,
    }


if __name__ == "__main__":
    run_benchmark("Statistics and report of a comparison", _measure)
