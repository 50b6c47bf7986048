"""How good the policy is by now, on workloads that nothing else sees."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.seeding import Purpose
from vidur_ext.evaluation.runner import GreedyRouter, follow_greedily, routing_environments
from vidur_ext.vidur.requests import WorkloadRequestGeneratorConfig, build_stream
from vidur_ext.vidur.simulation import VidurSimulation, isolated_simulation
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.trace_stream import TraceStream


class Validation:
    """Runs the greedy policy over ``validation_seeds`` workloads of ``validation_requests`` each.

    The engine is the training's: on the compiled one all workloads run side by side.

    Synthetic workloads have streams of their own. Of a trace, the end of the training part is
    taken: the held-out part stays unseen until the comparison, and a training gets there only if
    its budget is as long as the part.
    """

    def __init__(self, simulation_config: Any, section: CheckpointingSection) -> None:
        """Draw the workloads.

        Raises:
            UserError: the requests do not come from the generator ``stream``, the trace is too
                short, or the cluster is one that only Vidur simulates.
        """
        self._config = simulation_config
        generator = simulation_config.request_generator_config
        if not isinstance(generator, WorkloadRequestGeneratorConfig):
            raise UserError(
                "checkpointing.validation_freq needs workloads of its own, which the request "
                f"generator {generator.get_type()} does not have: use stream, or set it to null"
            )
        count = section.validation_requests
        self._tables = [_table(generator, seed, count) for seed in range(section.validation_seeds)]
        scheduler_config = simulation_config.cluster_config.global_scheduler_config
        self._envs = (
            routing_environments(simulation_config, len(self._tables))
            if scheduler_config.engine == "compiled"
            else None
        )

    def mean_latency_s(self, policy: RoutingPolicy) -> float:
        """Return the mean end-to-end latency of all requests; the training is left untouched."""
        if self._envs is None:
            return self._mean_latency_on_vidur(policy)
        self._envs.begin(self._tables)
        follow_greedily(self._envs, policy)
        arrived = np.stack([table.arrived_at for table in self._tables])
        return float((self._envs.completed_at - arrived).mean())

    def _mean_latency_on_vidur(self, policy: RoutingPolicy) -> float:
        latencies = []
        for table in self._tables:
            with isolated_simulation():
                simulation = VidurSimulation(self._config, table)
                simulation.scheduler.attach(GreedyRouter(policy))
                simulation.run()
            latencies += [r.completed_at - r.arrived_at for r in simulation.requests]
        return float(np.mean(latencies))


def _table(generator: Any, seed: int, count: int) -> RequestTable:
    own = dataclasses.replace(generator, purpose=int(Purpose.VALIDATION_WORKLOAD), variant=seed)
    stream = build_stream(own)
    if not isinstance(stream, TraceStream):
        return stream.window(0, count)
    available = len(stream.table)
    first = available - (seed + 1) * count
    if first < 0:
        raise UserError(
            f"{generator.trace_file}: its training part has {available} requests, too few for "
            f"{seed + 1} validation workloads of {count}; lower checkpointing.validation_seeds "
            "or validation_requests"
        )
    return stream.window(first, count)
