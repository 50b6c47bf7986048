"""Teachers route inside Vidur while the observation is recorded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Observation
from vidur_ext.env.schema import observation_schema
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.scheduler.global_scheduler.heuristics import ROUTING_HEURISTICS, RoutingContext
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.simulation.vidur_simulation import VidurSimulation
from vidur_ext.warmstart.demonstration_job import DemonstrationJob
from vidur_ext.warmstart.demonstrations import Demonstrations


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
    flags = job.config.to_cli_flags("ppo_modular", metrics_dir=job.metrics_dir)
    simulation = VidurSimulation(parse_simulation_config(flags), job.requests())
    context = RoutingContext(job.tie_breaker(), simulation.scheduler.estimator)
    teacher = WatchedTeacher(job.teacher, context)
    simulation.scheduler.attach(teacher)
    simulation.run()
    count = len(teacher.actions)
    schema = observation_schema(job.config.observation)
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
