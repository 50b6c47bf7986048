"""Collecting demonstrations from all teachers, on the engine that the training uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ppo_scheduler.config.training_config import TrainingConfig
from vidur_ext.parallel import map_unordered
from vidur_ext.warmstart.compiled_teachers import demonstrate_together
from vidur_ext.warmstart.demonstration_job import DemonstrationJob, demonstration_jobs
from vidur_ext.warmstart.demonstrations import Demonstrations, concatenate
from vidur_ext.warmstart.vidur_teachers import demonstrate


def collect_demonstrations(
    config: TrainingConfig, metrics_dir: str, report: Callable[[str], None]
) -> Demonstrations:
    """Collect from every teacher at every load level; the result does not depend on timing.

    ``simulation.engine`` simulates, and either engine shows the same: Vidur in
    ``parallel_training.num_workers`` processes, the compiled one all jobs at once in this process.
    """
    jobs = demonstration_jobs(config, metrics_dir)
    parts: list[Demonstrations | None] = [None] * len(jobs)
    for index, part in _demonstrated(config, jobs):
        parts[index] = part
        job = jobs[index]
        report(f"{len(part)} demonstrations of {job.teacher} at load {job.load_level:g}")
    return concatenate([part for part in parts if part is not None])


def _demonstrated(
    config: TrainingConfig, jobs: Sequence[DemonstrationJob]
) -> Iterable[tuple[int, Demonstrations]]:
    if config.simulation.engine == "compiled":
        return enumerate(demonstrate_together(jobs))
    return map_unordered(demonstrate, jobs, config.parallel_training.num_workers)
