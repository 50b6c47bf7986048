"""One simulation as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.gym.episodes import ConfigSource, GymObservation, RoutingEpisodes


class RoutingEnv(gymnasium.Env[GymObservation, np.int64]):
    """Routes each request of an episode to one of R replicas.

    Observation: ``replicas`` [R, F] and ``context`` [C], not normalized; all zeros after the last
    request, where nothing is to be decided. Action: the replica. Reward: what happened since the
    decision before, by ``reward_config``. An episode terminates when all its
    ``training.episode_requests`` requests have been served.
    """

    def __init__(self, config: ConfigSource = None, overrides: Sequence[str] = ()) -> None:
        """Build the cluster of a config; see ``RoutingEpisodes``.

        Raises:
            UserError: the config is wrong, or its cluster is one that only Vidur simulates.
        """
        self._episodes = RoutingEpisodes(config, overrides, 1)
        self._open = False
        self.observation_space = self._episodes.observation_space()
        self.action_space = self._episodes.action_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GymObservation, dict[str, Any]]:
        """Open the next episode, or with a seed the first one of its request stream.

        Raises:
            UserError: options are given: there are none.
        """
        refuse_options(options)
        super().reset(seed=seed)
        if seed is not None:
            self._episodes.restart(seed)
        self._open = True
        return self._alone(self._episodes.begin()), {}

    def step(
        self, action: np.int64 | NDArray[np.int64] | int
    ) -> tuple[GymObservation, float, bool, bool, dict[str, Any]]:
        """Route the waiting request.

        The info holds the components of the reward by name, and at the end of the episode the
        mean latencies of all its requests [s].

        Raises:
            UserError: there is no such replica, or no episode is open.
        """
        if not self._open:
            raise UserError("no episode is open: call reset() first")
        actions = checked_actions(np.reshape(action, -1), 1, self._episodes.num_replicas)
        seen = self._alone(self._episodes.step(actions))
        info = {name: float(value[0]) for name, value in self._episodes.components.items()}
        ended = self._episodes.ended
        if ended:
            self._open = False
            info |= {name: float(value[0]) for name, value in self._episodes.latencies().items()}
        return seen, float(self._episodes.reward[0]), ended, False, info

    @staticmethod
    def _alone(seen: GymObservation) -> GymObservation:
        return {name: array[0] for name, array in seen.items()}


def refuse_options(options: dict[str, Any] | None) -> None:
    """Gymnasium lets ``reset`` take options; what has no effect is not to look as if it had.

    Raises:
        UserError: there are some.
    """
    if options:
        raise UserError(
            f"reset(options={options}): there are no options; `overrides` of gymnasium.make change "
            "the environment, `seed` chooses the requests"
        )


def checked_actions(given: NDArray[Any], num_envs: int, num_replicas: int) -> NDArray[np.int64]:
    """Return the actions [B], each of which names a replica.

    Raises:
        UserError: they do not; saying what was expected.
    """
    if not np.issubdtype(given.dtype, np.integer):
        raise UserError(f"actions of type {given.dtype}: expected integers, the replicas")
    actions = given.astype(np.int64)
    if actions.shape != (num_envs,):
        raise UserError(f"expected one action per environment [{num_envs}], not {actions.shape}")
    if not ((actions >= 0) & (actions < num_replicas)).all():
        raise UserError(f"actions {actions.tolist()}: expected replicas 0 to {num_replicas - 1}")
    return actions
