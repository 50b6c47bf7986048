"""From Vidur's flat flags to its config object, for programs as well as for command lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vidur.utils.memory_planner import MemoryPlanner

from ppo_scheduler.errors import UserError
from vidur_ext.vidur import plugin
from vidur_ext.vidur.cluster import ReplicaKind, SimulationConfig, replica_kinds


def parse_simulation_config(flags: Sequence[str]) -> Any:
    """Return Vidur's ``SimulationConfig`` of ``flags``; our types are registered.

    Vidur creates its output folder and writes its config there while it is constructed.

    Raises:
        UserError: the model or its longest request does not fit a device's memory, or there are
            several devices where only one is possible.
    """
    plugin.register()
    with _command_line(flags):
        config = SimulationConfig.create_from_cli_args()
    _check_devices(config)
    kinds, kind_of = replica_kinds(config.cluster_config)
    for index, kind in enumerate(kinds):
        key = "cluster.device" if len(kinds) == 1 else f"cluster.devices[{kind_of.index(index)}]"
        _check_memory(kind, config.request_generator_config.max_tokens, key)
    return config


def _check_devices(config: Any) -> None:
    if config.cluster_config.devices is None:
        return
    predictor = str(config.execution_time_predictor_config.get_type())
    if predictor != "analytic":
        raise UserError(
            f"the predictor {predictor} knows one device: take simulation.predictor analytic, or "
            "cluster.device instead of cluster.devices"
        )
    metrics = config.metrics_config
    if metrics.write_metrics and metrics.store_utilization_metrics:
        raise UserError(
            "Vidur computes the utilization of all replicas from one device: with several "
            "devices give --no-metrics_config_store_utilization_metrics"
        )


def _check_memory(kind: ReplicaKind, longest: int, key: str) -> None:
    """Say what Vidur would end in an assertion or a division by zero for."""
    replica = kind.replica_config
    planner = MemoryPlanner(replica, kind.cache_config)
    try:
        tokens = planner.get_max_kv_cache_size_in_tokens()
    except AssertionError:
        tokens = 0
    if tokens < longest:
        raise UserError(
            f"{replica.model_name} on {replica.device} with tensor parallelism "
            f"{replica.tensor_parallel_size} leaves KV memory for {int(tokens)} tokens, and a "
            f"request may have {longest}: raise cluster.tensor_parallel_size, take a larger "
            f"{key}, or lower workload.max_tokens"
        )


@contextmanager
def _command_line(flags: Sequence[str]) -> Iterator[None]:
    """Vidur's parser reads ``sys.argv``; let it see ``flags`` and nothing else."""
    saved = sys.argv
    sys.argv = [saved[0], *flags]
    try:
        yield
    finally:
        sys.argv = saved
