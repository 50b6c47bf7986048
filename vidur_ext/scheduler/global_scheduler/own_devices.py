"""Replica schedulers on devices of their own, under our global schedulers and Vidur's."""

from __future__ import annotations

from typing import Any

from vidur.execution_time_predictor import ExecutionTimePredictorRegistry
from vidur.scheduler.global_scheduler.base_global_scheduler import BaseGlobalScheduler
from vidur.scheduler.global_scheduler.lor_global_scheduler import LORGlobalScheduler
from vidur.scheduler.global_scheduler.random_global_scheduler import RandomGlobalScheduler
from vidur.scheduler.global_scheduler.round_robin_global_scheduler import (
    RoundRobinGlobalScheduler,
)
from vidur.scheduler.replica_scheduler.replica_scheduler_registry import ReplicaSchedulerRegistry
from vidur.types import GlobalSchedulerType

from vidur_ext.simulation.cluster_config import ReplicaKind, replica_kinds


def build_predictor(config: Any, kind: ReplicaKind) -> Any:
    """Return Vidur's execution-time predictor of a kind of replica."""
    return ExecutionTimePredictorRegistry.get(
        config.execution_time_predictor_config.get_type(),
        predictor_config=config.execution_time_predictor_config,
        replica_config=kind.replica_config,
        cache_config=kind.cache_config,
    )


def build_replica_scheduler(config: Any, kind: ReplicaKind, replica: Any, predictor: Any) -> Any:
    """Return Vidur's replica scheduler of a replica of a kind."""
    cluster = config.cluster_config
    return ReplicaSchedulerRegistry.get(
        cluster.replica_scheduler_config.get_type(),
        replica_config=kind.replica_config,
        replica_scheduler_config=cluster.replica_scheduler_config,
        cache_config=kind.cache_config,
        request_generator_config=config.request_generator_config,
        replica=replica,
        num_stages=kind.replica_config.num_pipeline_stages,
        execution_time_predictor=predictor,
    )


class OwnDevices(BaseGlobalScheduler):
    """Gives replicas schedulers of their own kind; Vidur gives all of them those of one."""

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        kinds, kind_of = replica_kinds(config.cluster_config)
        if len(kinds) == 1:
            return
        predictors = [build_predictor(config, kind) for kind in kinds]
        for index, (replica_id, replica) in zip(kind_of, replicas.items(), strict=True):
            replica._replica_config = kinds[index].replica_config
            self._replica_schedulers[replica_id] = build_replica_scheduler(
                config, kinds[index], replica, predictors[index]
            )


VIDURS_SCHEDULERS = {
    key: type(f"OwnDevices{vidurs.__name__}", (OwnDevices, vidurs), {"__doc__": vidurs.__doc__})
    for key, vidurs in (
        (GlobalSchedulerType.RANDOM, RandomGlobalScheduler),
        (GlobalSchedulerType.ROUND_ROBIN, RoundRobinGlobalScheduler),
        (GlobalSchedulerType.LOR, LORGlobalScheduler),
    )
}
"""Vidur's own global schedulers, by their keys in its registry."""
