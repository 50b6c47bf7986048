"""What the command line says of a training in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.config.training_config import TrainingConfig
from vidur_ext.training.chunk_plan import usual_size


@dataclass(frozen=True)
class Order:
    """What the command line says about chunks and about the beginning of the training."""

    config_file: Path
    chunk_size: int | None
    """None is the usual size, or that of the training that goes on."""
    external: Path | None

    def size(self, config: TrainingConfig) -> int:
        """Return the size of the chunks of a new training."""
        training = config.training
        return self.chunk_size or usual_size(training.total_requests, training.episode_requests)
