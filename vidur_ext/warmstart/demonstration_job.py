"""One teacher at one load level: what it meets and how it breaks ties, on either engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.streams import demonstration_table


@dataclass(frozen=True)
class DemonstrationJob:
    """``index`` addresses the job's random streams; all jobs of a config have as many requests."""

    config: TrainingConfig
    teacher: str
    load_level: float
    index: int
    metrics_dir: str

    def requests(self) -> RequestTable:
        """Return the requests that the teacher routes."""
        count = self.config.warmstart.demo_requests
        return demonstration_table(self.config, self.index, count, self.load_level)

    def tie_breaker(self) -> np.random.Generator:
        """Return the stream by which the teacher breaks ties."""
        # Environment 0 belongs to the schedulers of simulations that are not demonstrations.
        seed = self.config.training.seed
        return generator(seed, Purpose.SCHEDULER, episode=self.index, environment=1)


def demonstration_jobs(config: TrainingConfig, metrics_dir: str) -> list[DemonstrationJob]:
    """Return every teacher at every load level."""
    pairs = [
        (t, level) for t in config.warmstart.teachers for level in config.warmstart.load_levels
    ]
    return [
        DemonstrationJob(config, teacher, level, index, metrics_dir)
        for index, (teacher, level) in enumerate(pairs)
    ]
