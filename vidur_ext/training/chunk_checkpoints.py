"""What the checkpoint folder holds of a run in chunks."""

from __future__ import annotations

import os

from ppo_scheduler.checkpoint.store import CheckpointInfo, CheckpointStore
from ppo_scheduler.config.training_config import TrainingConfig
from vidur_ext.training.run_folder import RunFolder


def newest_of_run(config: TrainingConfig, folder: RunFolder) -> CheckpointInfo | None:
    """Return the newest good checkpoint of the checkpoint folder, if it is this run's."""
    newest = CheckpointStore(config.checkpointing).latest()
    return newest if newest is not None and belongs_to(newest, folder) else None


def belongs_to(info: CheckpointInfo, folder: RunFolder) -> bool:
    """Tell whether a run saved a checkpoint."""
    return os.path.realpath(info.manifest.run_dir) == os.path.realpath(folder.path)


def requests_done(info: CheckpointInfo) -> int:
    """Return how many requests of the stream are trained in a checkpoint."""
    return int(info.manifest.facts.get("requests_done", info.manifest.global_step))
