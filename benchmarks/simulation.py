"""The compiled engine beside Vidur: the same requests, the same results, one process, one core.

Both are timed from the built simulation to its end; building, and compiling, are not simulation.
Metrics, traces and plots are switched off. Time is the process's CPU time: wall-clock time on a
busy machine would add what other programs took to Vidur's one long run, but hardly to the engine's
short ones. The engine's time is the mean of all its runs but the first, which loads machine code.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from harness import run_benchmark

from ppo_scheduler.seeding import Purpose
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.vidur.simulation import simulation_of
from vidur_ext.workload.run_workloads import workload_stream

_REQUESTS = 4096
_REPETITIONS = 15
_CASES: dict[str, tuple[str, float, dict[str, Any]]] = {
    "sarathi": ("round_robin", 22.0, {}),
    "sarathi_least_outstanding": ("least_outstanding", 22.0, {}),
    "sarathi_overload": ("round_robin", 44.0, {"num_blocks": 2000}),
    "sarathi_idle": ("round_robin", 4.0, {}),
    "vllm": ("round_robin", 22.0, {"replica_scheduler": "vllm", "max_tokens_in_batch": 8192}),
    "orca": ("round_robin", 22.0, {"replica_scheduler": "orca"}),
    "sarathi_32_replicas": ("round_robin", 176.0, {"num_replicas": 32}),
}


def _prefix_speed(requests: int) -> float:
    """Return requests/s of replicas that keep prefixes, on conversations, routed in turn."""
    config = TrainingConfig.model_validate(
        {
            "cluster": {"replica_scheduler": "vllm_v1"},
            "workload": {"source": "chat", "qps": 4.0},
        }
    )
    table = workload_stream(config, Purpose.WORKLOAD).window(0, requests)
    return requests / _engine_s(CompiledSimulation(engine_cluster(config), table, "round_robin"))


def _engine_s(simulation: CompiledSimulation) -> float:
    """Return the mean CPU time of a run."""
    fresh = simulation.snapshot()
    seconds = []
    for _ in range(_REPETITIONS + 1):
        simulation.restore(fresh)
        started = time.process_time()
        simulation.run()
        seconds.append(time.process_time() - started)
    return sum(seconds[1:]) / _REPETITIONS


def _compare(rule: str, qps: float, cluster: dict[str, Any], requests: int) -> dict[str, float]:
    config = TrainingConfig.model_validate({"cluster": cluster, "workload": {"qps": qps}})
    table = workload_stream(config, Purpose.WORKLOAD).window(0, requests)
    vidur = simulation_of(config, rule, table)
    started = time.process_time()
    vidur.run()
    vidur_s = time.process_time() - started

    started = time.process_time()
    compiled = CompiledSimulation(engine_cluster(config), table, rule)
    build_s = time.process_time() - started
    engine_s = _engine_s(compiled)
    expected = np.array(
        [(r.scheduled_at, r.prefill_completed_at, r.completed_at) for r in vidur.requests]
    )
    difference = np.abs(compiled.state.times / expected - 1.0).max()
    return {
        "speedup_vs_vidur": vidur_s / engine_s,
        "requests_per_second": requests / engine_s,
        "vidur_requests_per_second": requests / vidur_s,
        "max_relative_difference": float(difference),
        "other_replicas": float(np.count_nonzero(compiled.routing != vidur.routing)),
        "preemptions": float(compiled.preemptions.sum()),
        "build_ms": 1e3 * build_s,
    }


def measure(quick: bool) -> dict[str, float]:
    """Return the figures of every case and, under plain keys, those of the default cluster.

    ``max_relative_difference`` and ``other_replicas`` are the worst of all cases.
    """
    logging.getLogger("vidur").setLevel(logging.WARNING)
    requests = _REQUESTS // 8 if quick else _REQUESTS
    results = {name: _compare(*case, requests) for name, case in _CASES.items()}
    figures = dict(results["sarathi"])
    for key in ("max_relative_difference", "other_replicas"):
        figures[key] = max(result[key] for result in results.values())
    figures["lowest_speedup_vs_vidur"] = min(r["speedup_vs_vidur"] for r in results.values())
    figures["requests"] = float(requests)
    figures["requests_per_second_prefix"] = _prefix_speed(requests)
    for name, result in results.items():
        figures.update({f"{name}.{key}": value for key, value in result.items()})
    return figures


if __name__ == "__main__":
    run_benchmark("The compiled engine against Vidur, same requests", measure)
