"""Many simulations as one Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.gym.episodes import ConfigSource, GymObservation, RoutingEpisodes
from vidur_ext.gym.routing_env import checked_actions, refuse_options

Bools = NDArray[np.bool_]


class RoutingVectorEnv(gymnasium.vector.VectorEnv[GymObservation, NDArray[np.int64], NDArray[Any]]):
    """B environments like ``RoutingEnv``, stepped by one call into machine code.

    Each has its own window of the request stream; all windows are equally long, so all episodes
    end together. The step that ends them opens the next ones ("same step" autoreset): it returns
    their first observations, and under ``final_obs`` and ``final_info`` what ended.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self, num_envs: int = 1, config: ConfigSource = None, overrides: Sequence[str] = ()
    ) -> None:
        """Build the cluster of a config B times; see ``RoutingEpisodes``.

        Raises:
            UserError: the config is wrong, or its cluster is one that only Vidur simulates.
        """
        if num_envs < 1:
            raise UserError(f"num_envs={num_envs}: expected 1 or more")
        self._episodes = RoutingEpisodes(config, overrides, num_envs)
        self._open = False
        self.num_envs = num_envs
        self.single_observation_space = self._episodes.observation_space()
        self.single_action_space = self._episodes.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GymObservation, dict[str, Any]]:
        """Open the next episodes, or with a seed the first ones of its request stream.

        Raises:
            UserError: one seed per environment is given, though they share one stream; or options.
        """
        refuse_options(options)
        if isinstance(seed, list):
            raise UserError("the environments share one request stream: give one seed, not a list")
        super().reset(seed=seed)
        if seed is not None:
            self._episodes.restart(seed)
        self._open = True
        return self._episodes.begin(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[GymObservation, NDArray[np.float64], Bools, Bools, dict[str, Any]]:
        """Route the waiting request of every environment.

        Raises:
            UserError: the actions are not one replica each, or no episode is open.
        """
        if not self._open:
            raise UserError("no episode is open: call reset() first")
        chosen = checked_actions(np.asarray(actions), self.num_envs, self._episodes.num_replicas)
        seen = self._episodes.step(chosen)
        reward = self._episodes.reward
        info: dict[str, Any] = _with_masks(self._episodes.components)
        ended = np.full(self.num_envs, self._episodes.ended)
        if self._episodes.ended:
            info |= {
                "final_obs": _per_environment(seen, self.num_envs),
                "final_info": _with_masks(self._episodes.components | self._episodes.latencies()),
            }
            info |= {f"_{name}": ended.copy() for name in ("final_obs", "final_info")}
            seen = self._episodes.begin()
        return seen, reward, ended, np.zeros(self.num_envs, dtype=np.bool_), info


def _with_masks(columns: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Add what Gymnasium's infos have beside each array: the environments that it is of, all."""
    masks = {f"_{name}": np.ones(len(column), dtype=np.bool_) for name, column in columns.items()}
    return {**columns, **masks}


def _per_environment(seen: GymObservation, num_envs: int) -> NDArray[np.object_]:
    """Return the observations one by one, as Gymnasium's vector environments hand them out."""
    rows = np.empty(num_envs, dtype=object)
    for env in range(num_envs):
        rows[env] = {name: array[env] for name, array in seen.items()}
    return rows
