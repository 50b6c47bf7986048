"""What a training runs with: its settings, and what the files they name contain."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ppo_scheduler.files import disk_errors
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.workload.trained_rows import trace_digest

TRACE, PROFILES = "inputs.trace", "inputs.profiles"
"""Beside the settings of a checkpoint: a file may change under the same name."""


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """Return the settings by dotted name, and digests of a trace and of profiles.

    Raises:
        UserError: a file cannot be read.
    """
    digests = {
        TRACE: trace_digest(config.workload),
        PROFILES: _profiles_digest(config.simulation.profile_dir),
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
