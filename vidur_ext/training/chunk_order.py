"""What the command line says of a training in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError
from vidur_ext.training.chunk_plan import usual_size


@dataclass(frozen=True)
class Order:
    """What the command line says about chunks and about the beginning of the training."""

    config_file: Path
    chunk_size: int | None
    """None is the usual size, or that of the training that goes on."""
    external: Path | None

    def size(self, config: TrainingConfig) -> int:
        """Return the size of the chunks of a new training.

        Raises:
            UserError: the environments cannot share a chunk evenly.
        """
        training, num_envs = config.training, config.parallel_training.num_envs
        if self.chunk_size is not None and self.chunk_size % num_envs:
            raise UserError(
                f"--chunk-size {self.chunk_size} is no multiple of parallel_training.num_envs="
                f"{num_envs}: choose {-(-self.chunk_size // num_envs) * num_envs}, or another "
                "num_envs"
            )
        together = training.episode_requests * num_envs
        return self.chunk_size or usual_size(training.total_requests, together)
