"""One replica of a cluster, simulated with any constants of its device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ppo_scheduler.observation import Floats
from vidur_ext.calibration.measurements import (
    Iterations,
    Measured,
    Requests,
    Times,
    request_times,
)
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.execution_time.devices import Device
from vidur_ext.execution_time.roofline import RooflineModel
from vidur_ext.vidur.build import simulation_config
from vidur_ext.vidur.cluster_numbers import cluster_in_numbers, tables_in_numbers
from vidur_ext.vidur.engine_inputs import build_replicas
from vidur_ext.vidur.limits import check_requests
from vidur_ext.vidur.simulation import isolated_simulation

_ADD_UP = ("gemm_factor", "attention_factor", "collective_factor", "iteration_overhead_ms")


class Replica:
    """A replica of a config's cluster.

    Args:
        config: its cluster; replicas beyond the first, and other devices than ``cluster.device``,
            do not count.
        longest: prompt and output tokens of the longest request that it serves.

    Raises:
        UserError: the compiled engine does not simulate it, or the model or the longest request
            does not fit it.
    """

    def __init__(self, config: TrainingConfig, longest: int) -> None:
        cluster = config.cluster.model_copy(update={"num_replicas": 1, "devices": None})
        workload = config.workload.model_copy(update={"max_tokens": longest})
        built = simulation_config(
            config.model_copy(update={"cluster": cluster, "workload": workload}), "round_robin"
        )
        check_requests(built, longest)
        with isolated_simulation():
            replicas = build_replicas(built)
            self._cluster = cluster_in_numbers(replicas, built.cluster_config)
        [predictor] = replicas.predictors
        self._roofline: RooflineModel = predictor.roofline
        self._parts: dict[Iterations, dict[str, Floats]] = {}

    @property
    def tensor_parallel(self) -> int:
        """Devices that share a layer."""
        return self._roofline.tensor_parallel

    def times(self, device: Device, measured: Measured) -> Times:
        """Return how long what was measured would take with these constants.

        Raises:
            UserError: the engine cannot simulate the requests.
        """
        if isinstance(measured, Requests):
            return self._request_times(replace(self._roofline, device=device), measured)
        if device.eager_iteration_ms > 0.0:  # The longer of two times is no sum of parts.
            return {"step": _steps(replace(self._roofline, device=device), measured)}
        if measured not in self._parts:
            self._parts[measured] = _parts(self._roofline, measured)
        parts = self._parts[measured]
        sums = (getattr(device, name) * parts[name] for name in _ADD_UP)
        return {"step": sum(sums, start=parts["rest"])}

    def _request_times(self, roofline: RooflineModel, measured: Requests) -> Times:
        tables = tables_in_numbers([roofline], self._cluster.limits)
        simulation = CompiledSimulation(
            self._cluster._replace(tables=tables), measured.table, "round_robin"
        )
        simulation.run()
        arrived_at = measured.table.arrived_at
        return request_times(
            measured.table,
            simulation.prefill_completed_at - arrived_at,
            simulation.completed_at - arrived_at,
        )


def _parts(roofline: RooflineModel, measured: Iterations) -> dict[str, Floats]:
    """Return what each iteration takes for each unit of a constant [s], and "rest" without them.

    Times are sums of parts, each as many times as its constant says.
    """

    def without(**constants: float) -> Floats:
        device = roofline.device.model_copy(update=dict.fromkeys(_ADD_UP, 0.0) | constants)
        return _steps(replace(roofline, device=device), measured)

    rest = without()
    return {"rest": rest} | {name: without(**{name: 1.0}) - rest for name in _ADD_UP}


def _steps(roofline: RooflineModel, measured: Iterations) -> Floats:
    """Return the duration of every iteration [s]."""
    batches = zip(measured.decodes, measured.mean_kv, measured.prefill_tokens, strict=True)
    return np.array(
        [
            roofline.iteration_time_s(int(decodes), kv, [(0, int(prompt))] if prompt else [])
            for decodes, kv, prompt in batches
        ]
    )
