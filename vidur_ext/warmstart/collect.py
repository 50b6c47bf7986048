"""Collecting demonstrations: teachers route inside Vidur while the observation is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.observation import Observation
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.env.schema import observation_schema
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.parallel import map_unordered
from vidur_ext.scheduler.global_scheduler.heuristics import ROUTING_HEURISTICS, RoutingContext
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.simulation.vidur_simulation import VidurSimulation
from vidur_ext.warmstart.demonstrations import Demonstrations, concatenate
from vidur_ext.workload.streams import demonstration_table


@dataclass(frozen=True)
class DemonstrationJob:
    """One teacher at one load level. ``index`` addresses its random streams."""

    config: TrainingConfig
    teacher: str
    load_level: float
    index: int
    metrics_dir: str


class WatchedTeacher:
    """A router that does what a heuristic does and notes what a policy would have seen."""

    def __init__(self, teacher: str, context: RoutingContext) -> None:
        self._heuristic = ROUTING_HEURISTICS[teacher]
        self._context = context
        self._choice = 0
        self.observations: list[Observation] = []
        self.actions: list[int] = []

    def observe(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest | None
    ) -> None:
        if request is not None:
            self._choice = self._heuristic.choose(snapshot, request, self._context)

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        self.observations.append(observation)
        self.actions.append(self._choice)
        return np.array([self._choice])


def demonstrate(job: DemonstrationJob) -> Demonstrations:
    """Run one simulation and return every decision of its teacher."""
    config = job.config
    flags = config.to_cli_flags("ppo_modular", metrics_dir=job.metrics_dir)
    table = demonstration_table(config, job.index, config.warmstart.demo_requests, job.load_level)
    simulation = VidurSimulation(parse_simulation_config(flags), table)
    rng = generator(config.training.seed, Purpose.SCHEDULER, episode=job.index, environment=1)
    teacher = WatchedTeacher(job.teacher, RoutingContext(rng, simulation.scheduler.estimator))
    simulation.scheduler.attach(teacher)
    simulation.run()
    count = len(teacher.actions)
    schema = observation_schema(config.observation)
    return Demonstrations(
        schema.replica,
        schema.context,
        (job.teacher,),
        np.concatenate([o.replicas for o in teacher.observations]).astype(np.float32),
        np.concatenate([o.context for o in teacher.observations]).astype(np.float32),
        np.array(teacher.actions, dtype=np.int64),
        np.zeros(count, dtype=np.int64),
        np.full(count, job.load_level),
    )


def collect_demonstrations(
    config: TrainingConfig, metrics_dir: str, report: Callable[[str], None]
) -> Demonstrations:
    """Collect from every teacher at every load level; the result does not depend on timing."""
    jobs = list(_jobs(config, metrics_dir))
    parts: list[Demonstrations | None] = [None] * len(jobs)
    for index, part in map_unordered(demonstrate, jobs, config.parallel_training.num_workers):
        parts[index] = part
        job = jobs[index]
        report(f"{len(part)} demonstrations of {job.teacher} at load {job.load_level:g}")
    return concatenate([part for part in parts if part is not None])


def _jobs(config: TrainingConfig, metrics_dir: str) -> Iterator[DemonstrationJob]:
    pairs = [
        (t, level) for t in config.warmstart.teachers for level in config.warmstart.load_levels
    ]
    for index, (teacher, level) in enumerate(pairs):
        yield DemonstrationJob(config, teacher, level, index, metrics_dir)
