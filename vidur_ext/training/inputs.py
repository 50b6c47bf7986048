"""What a training runs with: its settings, and what the files they name contain."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ppo_scheduler.files import disk_errors
from vidur_ext.config.sections import ClusterSection
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.workload.trained_rows import trace_digest

TRACE, PROFILES, HARDWARE = "inputs.trace", "inputs.profiles", "inputs.hardware"
CONTENTS = (TRACE, PROFILES, HARDWARE)
"""Beside the settings of a checkpoint: a file may change under the same name."""


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """Return the settings by dotted name, and digests of a trace, profiles, device and model files.

    Raises:
        UserError: a file cannot be read.
    """
    digests = {
        TRACE: trace_digest(config.workload),
        PROFILES: _profiles_digest(config.simulation.profile_dir),
        HARDWARE: _hardware_digest(config.cluster),
    }
    return {**config.settings(), **digests}


def _profiles_digest(folder: str | None) -> str | None:
    if folder is None:
        return None
    content = hashlib.sha256()
    with disk_errors(Path(folder), "the profiles cannot be read", "Check simulation.profile_dir"):
        for file in sorted(Path(folder).rglob("*.csv*")):  # some are packed, .csv.xz
            content.update(str(file.relative_to(folder)).encode())
            content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:16]


def _hardware_digest(cluster: ClusterSection) -> str | None:
    """Return a digest of the device and model files that a user has written; None without any."""
    names = {cluster.model_name, cluster.device, *(cluster.devices or ())}
    files = sorted(name for name in names if name.endswith(".json"))
    if not files:
        return None
    content = hashlib.sha256()
    for file in files:
        with disk_errors(Path(file), "it cannot be read", "Check cluster.device and model_name"):
            content.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return content.hexdigest()[:16]
