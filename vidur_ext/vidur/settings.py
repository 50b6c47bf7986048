"""The settings of a training by their names in the config, whoever gave its flags."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vidur_ext.config.sections import WorkloadSection
from vidur_ext.vidur.flag_values import cluster_flags
from vidur_ext.vidur.requests import WorkloadRequestGeneratorConfig

_NOT_SETTINGS = (
    "_output_dir",
    "_run_dir",
    "_load_checkpoint",
    "_pretrained_actor",
    "_stop_at_requests",
)


def settings_of(simulation_config: Any) -> dict[str, Any]:
    """Return what ``TrainingConfig.settings`` calls it, as far as flags determine it."""
    flags = simulation_config.to_dict()
    cluster_config = simulation_config.cluster_config
    scheduler = cluster_config.global_scheduler_config
    generator = simulation_config.request_generator_config
    predictor = simulation_config.execution_time_predictor_config
    settings = {
        **scheduler.to_learner_config().settings(),
        "simulation.engine": scheduler.engine,
        "parallel_training.num_envs": scheduler.num_envs,
        "simulation.predictor": str(predictor.get_type()),
    }
    kind = str(cluster_config.replica_scheduler_config.get_type())
    for name, flag in cluster_flags(kind).items():
        settings[f"cluster.{name}"] = flags[flag]
    devices = cluster_config.devices
    settings["cluster.devices"] = None if devices is None else devices.split(",")
    if isinstance(generator, WorkloadRequestGeneratorConfig):
        for name in WorkloadSection.model_fields:
            settings[f"workload.{name}"] = getattr(generator, name)
    return settings


def settings_digest(simulation_config: Any) -> str:
    """Return a digest of all flags that are settings (not places) of a run."""
    flags = {
        name: value
        for name, value in simulation_config.to_dict().items()
        if not name.endswith(_NOT_SETTINGS)
    }
    # Checkpoints from before there was such a flag go on with the same digest.
    if flags["cluster_config_devices"] is None:
        del flags["cluster_config_devices"]
    return hashlib.sha256(json.dumps(flags, sort_keys=True, default=str).encode()).hexdigest()
