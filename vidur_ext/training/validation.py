"""How good the policy is by now, on workloads that nothing else sees."""

from __future__ import annotations

import numpy as np

from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.metrics import LEARNED
from vidur_ext.evaluation.runner import runs_on_engine, runs_on_vidur
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import validation_table


class Validation:
    """Runs the greedy policy over ``validation_seeds`` workloads of ``validation_requests`` each.

    The engine is the training's: on the compiled one all workloads run side by side.
    """

    def __init__(self, config: TrainingConfig) -> None:
        """Draw the workloads.

        Raises:
            UserError: the trace is too short.
        """
        self._config = config
        seeds = range(config.checkpointing.validation_seeds)
        self._workloads = {seed: validation_table(config, seed) for seed in seeds}
        compiled = config.simulation.engine == "compiled"
        self._cluster = engine_cluster(config) if compiled else None

    def mean_latency_s(self, policy: RoutingPolicy) -> float:
        """Return the mean end-to-end latency of all requests; the training is left untouched."""
        runs = (
            runs_on_vidur(self._config, LEARNED, policy, self._workloads)
            if self._cluster is None
            else runs_on_engine(self._config, self._cluster, LEARNED, policy, self._workloads)
        )
        return float(np.mean([run.completed_at - run.table.arrived_at for run in runs]))
