"""What a decision of look-ahead costs: with 100 requests on each replica, and usually.

An overload is routed by ``least_outstanding`` until so many requests are there; all choices for the
next ones are then priced, again and again: pricing changes nothing. Time is the process's CPU time,
the median over the decisions. ``usual_ms_per_decision`` is the mean of a simulation of the default
workload that ``lookahead`` routes, with all that is simulated.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from harness import run_benchmark

from ppo_scheduler.seeding import Purpose
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import workload_stream

_LIVE_PER_REPLICA = 100
_QPS_PER_REPLICA = 8.0
_REQUESTS_PER_REPLICA = 2000
_ASKED = np.ones(1, dtype=np.bool_)


def _crowded(replicas: int, decisions: int, repetitions: int) -> dict[str, float]:
    """Return the time [ms] of pricing all choices for a request, and how many are there then."""
    config = TrainingConfig.model_validate(
        {"cluster": {"num_replicas": replicas}, "workload": {"qps": _QPS_PER_REPLICA * replicas}}
    )
    cluster = engine_cluster(config)
    stream = workload_stream(config, Purpose.WORKLOAD)
    table = stream.window(0, _REQUESTS_PER_REPLICA * replicas)
    routed = CompiledSimulation(cluster, table, "least_outstanding")
    routed.run()
    envs = RoutingEnvironments(cluster, config, 1)
    envs.begin([table])
    seconds: list[float] = []
    crowds: list[float] = []
    finished = 0
    for request, replica in enumerate(routed.routing):
        live = request - finished
        if live >= _LIVE_PER_REPLICA * replicas:
            envs.costs(_ASKED)  # learns what was completed since, and loads machine code
            started = time.process_time()
            for _ in range(repetitions):
                envs.costs(_ASKED)
            seconds.append((time.process_time() - started) / repetitions)
            crowds.append(live / replicas)
        if len(seconds) == decisions:
            break
        envs.step(np.array([replica]))
        finished += len(envs.completed)
    return {
        f"ms_per_decision_{replicas}": 1e3 * statistics.median(seconds),
        f"live_requests_per_replica_{replicas}": statistics.mean(crowds),
    }


def _usual(requests: int) -> dict[str, float]:
    config = TrainingConfig()
    table = workload_stream(config, Purpose.WORKLOAD).window(0, requests)
    simulation = CompiledSimulation(
        engine_cluster(config), table, "lookahead", ttft_weight=config.lookahead.ttft_weight
    )
    started = time.process_time()
    simulation.run()
    return {"usual_ms_per_decision": 1e3 * (time.process_time() - started) / requests}


def measure(quick: bool) -> dict[str, float]:
    """Return the times [ms], and how crowded the clusters were."""
    effort = (10, 3) if quick else (100, 10)
    return {
        **_crowded(4, *effort),
        **_crowded(16, *effort),
        **_usual(1024 if quick else 8192),
    }


if __name__ == "__main__":
    run_benchmark("Look-ahead: one decision", measure)
