"""Teachers route on the compiled engine, all at once; what a policy sees is recorded in a replay.

A teacher decides inside compiled code, which shows nobody an observation. So each teacher routes
first, and then all their routings are followed side by side while the observations are taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.simulation.flags import parse_simulation_config
from vidur_ext.warmstart.demonstration_job import DemonstrationJob
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.workload.request_table import RequestTable


def demonstrate_together(jobs: Sequence[DemonstrationJob]) -> list[Demonstrations]:
    """Return every decision of each job's teacher; the jobs are those of one config.

    Raises:
        UserError: the cluster is one that only Vidur simulates.
    """
    tables = [job.requests() for job in jobs]
    actions = np.stack([_route(job, table) for job, table in zip(jobs, tables, strict=True)])
    return _replay(jobs, tables, actions)


def _route(job: DemonstrationJob, table: RequestTable) -> NDArray[np.int64]:
    """Return the replicas [N] that the teacher chooses."""
    flags = job.config.to_cli_flags(job.teacher, metrics_dir=job.metrics_dir)
    simulation = CompiledSimulation(parse_simulation_config(flags), table, rng=job.tie_breaker())
    simulation.run()
    return simulation.routing


def _replay(
    jobs: Sequence[DemonstrationJob], tables: Sequence[RequestTable], actions: NDArray[np.int64]
) -> list[Demonstrations]:
    """Take the given actions [B, N] and record what a policy would have seen."""
    config, (count, decisions) = jobs[0].config, actions.shape
    flags = config.to_cli_flags("ppo_modular", metrics_dir=jobs[0].metrics_dir)
    envs = RoutingEnvironments(
        parse_simulation_config(flags), config.observation, config.reward_config, count
    )
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
        )
        for row, job in enumerate(jobs)
    ]
