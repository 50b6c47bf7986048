"""Look-ahead beats every heuristic, also where it is wrong about how long things take."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.config.sections import ORACLES, PLANNERS, SCHEDULERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.layout import Cluster, Tables, alone
from vidur_ext.engine.planner import Planner
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import evaluation_table

WEIGHT = 5.0
WORKLOADS = range(4)
HEURISTICS = [name for name in SCHEDULERS if name not in (*ORACLES, *PLANNERS)]
PROJECTIONS, MLP = 0, 3
"""Terms of ``Tables.per_tokens`` that are matrix products, with little beside them."""


@pytest.fixture(scope="module")
def config():
    return TrainingConfig()


@pytest.fixture(scope="module")
def cluster(config) -> Cluster:
    return engine_cluster(config)


@pytest.fixture(scope="module")
def workloads(config):
    return [evaluation_table(config, seed) for seed in WORKLOADS]


def mean_e2e_s(config, table, simulation) -> float:
    counted = int(len(table) * config.evaluation.warmup_fraction)
    return float((simulation.completed_at - table.arrived_at)[counted:].mean())


@pytest.fixture(scope="module")
def e2e(config, cluster, workloads):
    """Return the mean latency of a scheduler on each workload [s]."""

    def measure(name: str) -> np.ndarray:
        latencies = []
        for table in workloads:
            simulation = CompiledSimulation(cluster, table, name, ttft_weight=WEIGHT)
            simulation.run()
            latencies.append(mean_e2e_s(config, table, simulation))
        return np.array(latencies)

    return measure


@pytest.fixture(scope="module")
def best_heuristic(e2e) -> np.ndarray:
    return min((e2e(name) for name in HEURISTICS), key=np.mean)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_beats_the_best_heuristic(name, e2e, best_heuristic):
    planned = e2e(name)
    assert planned.mean() < 0.97 * best_heuristic.mean()
    assert (planned < best_heuristic).all()


def halved(tables: Tables) -> Tables:
    return tables._replace(num_layers=tables.num_layers / 2)


def scaled(tables: Tables, matrix_products: float, attention: float) -> Tables:
    per_tokens = tables.per_tokens.copy()
    per_tokens[..., [PROJECTIONS, MLP]] *= matrix_products
    return tables._replace(
        per_tokens=per_tokens, decode=tables.decode * attention, prefill=tables.prefill * attention
    )


def slow_products(tables: Tables) -> Tables:
    return scaled(tables, 1.15, 0.7)


def slow_attention(tables: Tables) -> Tables:
    return scaled(tables, 0.85, 1.3)


@pytest.mark.parametrize("believed", [halved, slow_products, slow_attention])
def test_planning_with_wrong_times_still_wins(believed, config, cluster, workloads, best_heuristic):
    latencies = []
    for table in workloads:
        simulation = CompiledSimulation(cluster, table, None)
        tables = believed(cluster.tables)
        planner = Planner(cluster, 1, len(table), WEIGHT, tables=tables)
        while simulation.advance() >= 0:
            costs = planner.costs(alone(simulation._sim), np.array([True]))
            simulation.assign(int(costs[0].argmin()))
        latencies.append(mean_e2e_s(config, table, simulation))
    assert np.mean(latencies) < 0.97 * best_heuristic.mean()
    assert (np.array(latencies) < best_heuristic).all()
