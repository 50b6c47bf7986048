"""The actions of the unfinished episodes, from which a resume replays them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.state import StateDict

_FIRST_CAPACITY = 256


class ActionLog:
    """Keeps each environment's actions since its episode began."""

    def __init__(self, num_envs: int) -> None:
        self._actions: NDArray[np.int16] = np.zeros((num_envs, _FIRST_CAPACITY), np.int16)
        self._lengths = np.zeros(num_envs, np.int64)
        self._environments = np.arange(num_envs)

    def append(self, action: NDArray[np.int64], done: NDArray[np.bool_]) -> None:
        """Take one action per environment [B]; ``done`` [B] marks those that open an episode."""
        self._lengths[done] = 0
        if self._lengths.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[self._environments, self._lengths] = action
        self._lengths += 1

    def clear(self) -> None:
        self._lengths[:] = 0

    def together(self) -> NDArray[np.int64]:
        """Return the actions [B, steps] of episodes that began together."""
        assert (self._lengths == self._lengths[0]).all(), self._lengths
        return self._actions[:, : self._lengths[0]].astype(np.int64)

    def state_dict(self) -> StateDict:
        actions = self._actions[:, : self._lengths.max()]
        return {
            "actions": torch.from_numpy(actions.copy()),
            "lengths": torch.from_numpy(self._lengths.copy()),
        }

    def load_state_dict(self, state: StateDict) -> None:
        actions = state["actions"].numpy()
        spare = np.zeros((len(actions), _FIRST_CAPACITY), np.int16)
        self._actions = np.concatenate([actions.astype(np.int16), spare], axis=1)
        self._lengths = state["lengths"].numpy().copy()
