"""Demonstrations of all teachers at all loads, on either engine.

On Vidur a teacher routes while the observation is recorded. On the compiled engine it decides
inside compiled code, which shows nobody an observation: each teacher routes first, and then all
routings are followed side by side while the observations are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Observation
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.layout import Cluster
from vidur_ext.processes import map_unordered
from vidur_ext.routing.estimator import Estimates
from vidur_ext.routing.features import observation_schema
from vidur_ext.routing.thresholds import Thresholds, thresholds_of
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, SinceLastDecision
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.vidur.observation import HeuristicChooser
from vidur_ext.vidur.simulation import routed_by
from vidur_ext.warmstart.demonstrations import Demonstrations, concatenate
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.run_workloads import demonstration_table


@dataclass(frozen=True)
class DemonstrationJob:
    """``index`` addresses the job's random streams; all jobs of a config have as many requests."""

    config: TrainingConfig
    teacher: str
    load_level: float
    index: int

    def requests(self) -> RequestTable:
        """Return the requests that the teacher routes."""
        count = self.config.warmstart.demo_requests
        return demonstration_table(self.config, self.index, count, self.load_level)

    def tie_breaker(self) -> np.random.Generator:
        """Return the stream by which the teacher breaks ties."""
        # Environment 0 belongs to the schedulers of simulations that are not demonstrations.
        seed = self.config.training.seed
        return generator(seed, Purpose.SCHEDULER, episode=self.index, environment=1)


def demonstration_jobs(config: TrainingConfig) -> list[DemonstrationJob]:
    """Return every teacher at every load level."""
    pairs = [
        (t, level) for t in config.warmstart.teachers for level in config.warmstart.load_levels
    ]
    return [
        DemonstrationJob(config, teacher, level, index)
        for index, (teacher, level) in enumerate(pairs)
    ]


class WatchedTeacher:
    """A router that does what a heuristic does and notes what a policy would have seen."""

    def __init__(self, teacher: str, told: Thresholds, tie_breaker: np.random.Generator) -> None:
        self._teacher = teacher
        self._told = told
        self._tie_breaker = tie_breaker
        self._chooser: HeuristicChooser | None = None
        self._choice = 0
        self.observations: list[Observation] = []
        self.actions: list[int] = []

    def watch(self, estimates: Estimates) -> None:
        """Let the teacher know the simulation's replicas; must be called before it runs."""
        self._chooser = HeuristicChooser(self._teacher, estimates, self._told, self._tie_breaker)

    def observe(
        self,
        snapshot: ClusterSnapshot,
        interval: SinceLastDecision,
        request: ArrivingRequest | None,
    ) -> None:
        if request is not None:
            assert self._chooser is not None, "watch a simulation before it runs"
            self._choice = self._chooser.choose(snapshot, request)

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        self.observations.append(observation)
        self.actions.append(self._choice)
        return np.array([self._choice])


def demonstrate(job: DemonstrationJob) -> Demonstrations:
    """Run one simulation and return every decision of its teacher."""
    told = thresholds_of(job.config.routers, job.config.cluster.block_size)
    teacher = WatchedTeacher(job.teacher, told, job.tie_breaker())
    simulation = routed_by(teacher, job.config, job.requests())
    teacher.watch(simulation.scheduler.estimates)
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
        np.zeros((count, 0), dtype=np.float32),
    )


def demonstrate_together(jobs: Sequence[DemonstrationJob]) -> list[Demonstrations]:
    """Return every decision of each job's teacher; the jobs are those of one config."""
    tables = [job.requests() for job in jobs]
    cluster = engine_cluster(jobs[0].config)
    routings = [_route(cluster, job, table) for job, table in zip(jobs, tables, strict=True)]
    return _replay(cluster, jobs, tables, np.stack(routings))


def _route(cluster: Cluster, job: DemonstrationJob, table: RequestTable) -> NDArray[np.int64]:
    """Return the replicas [N] that the teacher chooses."""
    simulation = CompiledSimulation(cluster, table, job.teacher, rng=job.tie_breaker())
    simulation.run()
    return simulation.routing


def _replay(
    cluster: Cluster,
    jobs: Sequence[DemonstrationJob],
    tables: Sequence[RequestTable],
    actions: NDArray[np.int64],
) -> list[Demonstrations]:
    """Take the given actions [B, N] and record what a policy would have seen."""
    config, (count, decisions) = jobs[0].config, actions.shape
    envs = RoutingEnvironments(cluster, config, count)
    schema = envs.schema
    shape = (count, decisions, envs.num_replicas, len(schema.replica))
    replicas = np.empty(shape, dtype=np.float32)
    context = np.empty((count, decisions, len(schema.context)), dtype=np.float32)
    envs.begin(tables)
    for step in range(decisions):
        replicas[:, step] = envs.observation.replicas
        context[:, step] = envs.observation.context
        envs.step(actions[:, step])
    return [
        Demonstrations(
            schema.replica,
            schema.context,
            (job.teacher,),
            replicas[row],
            context[row],
            actions[row],
            np.zeros(decisions, dtype=np.int64),
            np.full(decisions, job.load_level),
            np.zeros((decisions, 0), dtype=np.float32),
        )
        for row, job in enumerate(jobs)
    ]


def collect_demonstrations(config: TrainingConfig, report: Callable[[str], None]) -> Demonstrations:
    """Collect from every teacher at every load level; the result does not depend on timing.

    ``simulation.engine`` simulates, and either engine shows the same: Vidur in
    ``parallel_training.num_workers`` processes, the compiled one all jobs at once in this process.
    """
    jobs = demonstration_jobs(config)
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
