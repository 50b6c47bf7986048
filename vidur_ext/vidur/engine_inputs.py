"""The cluster of a config for the compiled engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.layout import Cluster
from vidur_ext.routing.thresholds import thresholds_of
from vidur_ext.vidur.build import simulation_config
from vidur_ext.vidur.cluster import build_predictor, build_replica_scheduler, replica_kinds
from vidur_ext.vidur.cluster_numbers import Replicas, cluster_in_numbers
from vidur_ext.vidur.router_flags import flagged_thresholds
from vidur_ext.vidur.simulation import isolated_simulation


def engine_cluster(config: TrainingConfig) -> Cluster:
    """Return the cluster of a run that the compiled engine simulates.

    Raises:
        UserError: the model or its longest request does not fit a device's memory.
    """
    cluster = cluster_of(simulation_config(config, "round_robin"))
    told = thresholds_of(config.routers, config.cluster.block_size)
    return cluster._replace(settings=cluster.settings._replace(thresholds=told))


def cluster_of(config: Any) -> Cluster:
    """Return the numbers of Vidur's ``SimulationConfig``; the engine must simulate its cluster.

    Only its own global scheduler is told what its flags say.
    """
    # Vidur counts the objects that are built to read its limits and tables.
    with isolated_simulation():
        cluster = cluster_in_numbers(build_replicas(config), config.cluster_config)
    told = flagged_thresholds(config)
    return cluster._replace(settings=cluster.settings._replace(thresholds=told))


def build_replicas(config: Any) -> Replicas:
    """Let Vidur build a replica scheduler of each kind, so that their limits are Vidur's own."""
    kinds, kind_of = replica_kinds(config.cluster_config)
    schedulers = [
        build_replica_scheduler(
            config, kind, SimpleNamespace(id=index), build_predictor(config, kind)
        )
        for index, kind in enumerate(kinds)
    ]
    return Replicas(schedulers, np.array(kind_of, dtype=np.int64))
