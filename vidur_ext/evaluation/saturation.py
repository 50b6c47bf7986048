"""The highest arrival rate that a cluster sustains, found by bisection.

Requests of the workload's lengths arrive evenly: bursts decide how long requests wait, not how many
a cluster serves in the long run, so saturation belongs to cluster and lengths alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.layout import Cluster
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.run_workloads import arrival_rates, workload_stream

ROUTER = "min_predicted_latency"
"""Routes: the best heuristic on most scenarios, and within two percent of it on the others."""

REQUESTS = 65_536
"""Length of the run; the mean output of so many requests is known to half a percent."""

MOST_GROWTH = 1.5
"""The run's second half may have this many times the mean E2E of its first."""

PRECISION = 1e-3
"""Relative: bisection ends when the rate is known so well."""


@dataclass(frozen=True)
class Saturation:
    """What a cluster sustains, and what a workload asks of it.

    Attributes:
        sustained: the highest arrival rate that the cluster sustains [requests/s].
        rates: mean arrival rates that the workload goes through [requests/s].
    """

    sustained: float
    rates: tuple[float, ...]

    @property
    def loads(self) -> tuple[float, ...]:
        """The workload's rates as shares of saturation."""
        return tuple(rate / self.sustained for rate in self.rates)


def saturation_of(config: TrainingConfig) -> Saturation:
    """Return the saturation of a run's cluster under the lengths of its training stream.

    Equal configs give equal numbers; neither arrival rate nor arrival process counts.

    Raises:
        UserError: the compiled engine does not simulate the run; the trace cannot be used; or the
            cluster cannot serve its longest request.
    """
    check_engine_finds_it(config)
    rates = arrival_rates(config.workload)
    cluster = engine_cluster(config)
    requests = workload_stream(config, Purpose.WORKLOAD).window(0, REQUESTS)
    sustained = highest_rate(lambda rate: sustains(cluster, requests, rate), near=rates[0])
    return Saturation(sustained, rates)


def check_engine_finds_it(config: TrainingConfig) -> None:
    """Raise ``UserError`` unless the compiled engine simulates the run."""
    if config.simulation.engine != "compiled":
        raise UserError(
            f'saturation is found on the compiled engine, not on "{config.simulation.engine}": '
            'set simulation.engine to "compiled"'
        )


def sustains(cluster: Cluster, requests: RequestTable, rate: float) -> bool:
    """Return whether a cluster keeps up with requests that arrive evenly at ``rate`` [1/s]."""
    table = RequestTable(
        np.arange(1, len(requests) + 1) / rate,
        requests.prefill_tokens,
        requests.decode_tokens,
        requests.prompts,
    )
    simulation = CompiledSimulation(cluster, table, ROUTER)
    simulation.run()
    first, second = np.array_split(simulation.completed_at - simulation.arrived_at, 2)
    return float(second.mean()) <= MOST_GROWTH * float(first.mean())


def highest_rate(is_sustained: Callable[[float], bool], near: float) -> float:
    """Return the highest rate that is sustained, to ``PRECISION``.

    The search begins at powers of two, so that where it begins does not count.

    Args:
        is_sustained: tells it of a rate; up to some rate it is true, above it false.
        near: a rate of the same order, to save time.
    """
    low = 2.0 ** math.floor(math.log2(near))
    while not is_sustained(low):
        low /= 2.0
    high = 2.0 * low
    while is_sustained(high):
        low, high = high, 2.0 * high
    while high - low > PRECISION * low:
        middle = (low + high) / 2.0
        low, high = (middle, high) if is_sustained(middle) else (low, middle)
    return low
