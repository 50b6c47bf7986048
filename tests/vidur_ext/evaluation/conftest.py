"""Runs made of plain numbers, for all tests of the evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.workload.request_table import RequestTable

MakeRun = Callable[..., RunResult]
Compare = Callable[..., Comparison]

SLOWNESS = {"oracle_work": 0.7, "ppo": 0.8, "least_outstanding": 1.0, "always_first": 12.0}
"""Latency of each scheduler of ``small_runs``, relative to the baseline's."""


def tiny_run(scheduler: str = "ppo", seed: int = 0, **changes: Any) -> RunResult:
    """Return four requests on two replicas; its figures are easily worked out by hand."""
    requests: dict[str, Any] = {
        "arrived_at": np.array([0.0, 1.0, 2.0, 3.0]),
        "prefill_tokens": np.array([10, 20, 30, 40]),
        "decode_tokens": np.array([5, 1, 4, 3]),
    }
    requests |= {name: changes.pop(name) for name in requests if name in changes}
    fields: dict[str, Any] = {
        "num_replicas": 2,
        "table": RequestTable(**requests),
        "arrived_at": requests["arrived_at"],
        "scheduled_at": np.array([0.0, 1.0, 2.5, 3.0]),
        "prefill_completed_at": np.array([0.5, 2.0, 4.0, 7.0]),
        "completed_at": np.array([2.5, 2.0, 10.0, 8.0]),
        "replica": np.array([0, 1, 0, 0]),
        "found_tokens": np.zeros(4, dtype=np.int64),
        "preemptions": np.zeros(4, dtype=np.int64),
        "uses_output_lengths": False,
        "decisions_per_second": 100.0,
    }
    return RunResult(scheduler=scheduler, seed=seed, **{**fields, **changes})


def random_run(scheduler: str, seed: int, slowness: float, requests: int = 120) -> RunResult:
    """Return a run whose requests depend on the seed and whose latencies scale with slowness."""
    world = np.random.default_rng([seed, 1])
    arrived = np.sort(world.uniform(0, 10, requests))
    decode = world.integers(1, 40, requests)
    own = np.random.default_rng([seed, *scheduler.encode()])
    first = arrived + slowness * world.uniform(0.1, 0.4, requests) * own.uniform(0.9, 1.1, requests)
    even = own.integers(0, 3, requests)
    return RunResult(
        scheduler=scheduler,
        seed=seed,
        num_replicas=3,
        table=RequestTable(arrived, world.integers(1, 500, requests), decode),
        arrived_at=arrived,
        scheduled_at=arrived,
        prefill_completed_at=first,
        completed_at=first + slowness * 0.02 * (decode - 1),
        replica=np.zeros_like(even) if scheduler == "always_first" else even,
        found_tokens=np.zeros(requests, dtype=np.int64),
        preemptions=np.zeros(requests, dtype=np.int64),
        uses_output_lengths=scheduler == "oracle_work",
        decisions_per_second=500.0,
    )


def compare_runs(runs: Sequence[RunResult], **changes: Any) -> Comparison:
    """Compare runs, expecting exactly those there are unless told otherwise."""
    arguments: dict[str, Any] = {
        "expected_schedulers": list(dict.fromkeys(run.scheduler for run in runs)),
        "expected_seeds": sorted({run.seed for run in runs}),
        "engine": "compiled",
        "slo_ttft_s": 0.3,
        "slo_tbt_s": 0.05,
        "warmup_fraction": 0.1,
        "bootstrap_samples": 60,
        "rng": np.random.default_rng(0),
    }
    return Comparison.from_runs(runs, **{**arguments, **changes})


def changed_run(run: RunResult, request: int, step: int = 1) -> RunResult:
    """Return a run that differs in where one request went, ``step`` replicas further."""
    replica = run.replica.copy()
    replica[request] = (replica[request] + step) % run.num_replicas
    return dataclasses.replace(run, replica=replica)


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Return the maker of tiny runs."""
    return tiny_run


@pytest.fixture(scope="session")
def make_changed_run() -> MakeRun:
    """Return the changer of one request's replica."""
    return changed_run


@pytest.fixture(scope="session")
def compare() -> Compare:
    """Return the comparison with small defaults."""
    return compare_runs


@pytest.fixture(scope="session")
def make_random_run() -> MakeRun:
    """Return the maker of larger runs: scheduler, seed, slowness."""
    return random_run


@pytest.fixture(scope="session")
def small_runs() -> list[RunResult]:
    """Return four schedulers on two seeds, worst first."""
    return [
        random_run(name, seed, slowness)
        for name, slowness in reversed(SLOWNESS.items())
        for seed in (0, 1)
    ]


@pytest.fixture(scope="session")
def small_comparison(small_runs: list[RunResult]) -> Comparison:
    """Return the comparison of ``small_runs``."""
    return compare_runs(small_runs)
