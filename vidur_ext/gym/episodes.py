"""Episode after episode of one request stream, as both environments play them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.layout import Ints
from vidur_ext.routing.components import COMPONENT_NAMES
from vidur_ext.training.feasible import check_feasible
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.run_workloads import build_stream

ConfigSource = TrainingConfig | str | Path | None
GymObservation = dict[str, NDArray[np.float32]]


class RoutingEpisodes:
    """B episodes at once; the next ones go on in the request stream where the last ones ended."""

    def __init__(self, config: ConfigSource, overrides: Sequence[str], num_envs: int) -> None:
        """Build the cluster.

        Args:
            config: a training config or its JSON file; None means the defaults.
            overrides: what ``--set`` takes, such as ``cluster.num_replicas=8``; for a file or None.

        Raises:
            UserError: the config is wrong, or its cluster is one that only Vidur simulates.
        """
        self._config = read_config(config, overrides)
        check_feasible(self._config)
        cluster = engine_cluster(self._config)
        self._envs = RoutingEnvironments(cluster, self._config, num_envs)
        self._episode_requests = self._config.training.episode_requests
        self.num_envs = num_envs
        self.num_replicas = self._envs.num_replicas
        self._tables: list[RequestTable] = []
        self.restart(self._config.training.seed)

    def restart(self, seed: int) -> None:
        """Go to the beginning of the seed's request stream. A trace is the same for all seeds."""
        self._stream = build_stream(self._config.workload, seed)
        self._next_request = 0

    def begin(self) -> GymObservation:
        """Open the next episodes and return what their first requests show."""
        count = self._episode_requests
        first = self._next_request
        self._next_request += count * self.num_envs
        self._tables = [
            self._stream.window(first + env * count, count) for env in range(self.num_envs)
        ]
        self._envs.begin(self._tables)
        return self._seen()

    def step(self, actions: Ints) -> GymObservation:
        """Route the waiting requests to the replicas ``actions`` [B]; they must exist."""
        self._envs.step(actions)
        return self._seen()

    @property
    def ended(self) -> bool:
        """Whether all requests of the episodes have been served; they all end together."""
        return not self._envs.waiting

    @property
    def reward(self) -> Floats:
        """What was earned [B] since the step before."""
        return self._envs.reward

    @property
    def components(self) -> dict[str, Floats]:
        """Components [B] of the reward by name, whichever of them it is made of."""
        return dict(zip(COMPONENT_NAMES, self._envs.components.T, strict=True))

    def latencies(self) -> dict[str, Floats]:
        """Return the episodes' mean times [B] end to end and to first token [s], at their end."""
        arrived = self._envs.arrived_at
        return {
            "mean_latency_s": (self._envs.completed_at - arrived).mean(axis=1),
            "mean_ttft_s": (self._envs.prefill_completed_at - arrived).mean(axis=1),
        }

    def observation_space(self) -> spaces.Space[Any]:
        """Return the space of one environment's observations."""
        schema = self._envs.schema
        shapes = {
            "replicas": (self.num_replicas, len(schema.replica)),
            "context": (len(schema.context),),
        }
        return spaces.Dict(
            {name: spaces.Box(-np.inf, np.inf, shape) for name, shape in shapes.items()}
        )

    def action_space(self) -> spaces.Space[Any]:
        """Return the space of one environment's actions: the replicas."""
        return spaces.Discrete(self.num_replicas)

    def _seen(self) -> GymObservation:
        if self.ended:
            # No request waits, so there is nothing to decide on and nothing to show.
            schema, shape = self._envs.schema, (self.num_envs, self.num_replicas)
            return {
                "replicas": np.zeros((*shape, len(schema.replica)), dtype=np.float32),
                "context": np.zeros((self.num_envs, len(schema.context)), dtype=np.float32),
            }
        observation = self._envs.observation
        return {
            "replicas": observation.replicas.astype(np.float32),
            "context": observation.context.astype(np.float32),
        }


def read_config(config: ConfigSource, overrides: Sequence[str]) -> TrainingConfig:
    """Return the training config that was meant.

    Raises:
        UserError: it is wrong, or names the engine that cannot be stepped from outside.
    """
    if not isinstance(config, TrainingConfig | str | Path | None):
        raise UserError(
            f"config is a {type(config).__name__}: give a TrainingConfig, which "
            "TrainingConfig.model_validate makes of a dict, or the path of a JSON file"
        )
    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides):
        raise UserError(
            f'overrides={overrides!r}: give a list of texts, such as ["cluster.num_replicas=8"]'
        )
    if not isinstance(config, TrainingConfig):
        read = load_config(None if config is None else Path(config), overrides)
    elif overrides:
        raise UserError("overrides change a file or the defaults, not a TrainingConfig")
    else:
        read = config
    if read.simulation.engine != "compiled":
        raise UserError(
            f'simulation.engine="{read.simulation.engine}" cannot be stepped from outside: the '
            'Gymnasium environments need simulation.engine="compiled"'
        )
    return read
