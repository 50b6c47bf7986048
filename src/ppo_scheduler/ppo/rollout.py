"""The rollout: what was seen, done and earned since the last update, what that looked like, and the
actions of the unfinished episodes, from which a resume replays them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.observation import Floats, ObservationSchema
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.state import StateDict

_Scalar = TypeVar("_Scalar", bound=np.generic)
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

    def columns(self) -> dict[str, NDArray[np.integer]]:
        """Return copies of the actions [B, longest] and of how many there are of each [B]."""
        longest = self._lengths.max()
        return {"actions": self._actions[:, :longest].copy(), "lengths": self._lengths.copy()}

    def load(self, columns: Mapping[str, NDArray[np.integer]]) -> None:
        """Go on from what ``columns`` returned."""
        actions = columns["actions"]
        spare = np.zeros((len(actions), _FIRST_CAPACITY), np.int16)
        self._actions = np.concatenate([actions.astype(np.int16), spare], axis=1)
        self._lengths[:] = columns["lengths"]


Row = Mapping[str, NDArray[np.generic]]
"""What is known of one step of B environments, by the names of the rollout's columns."""


class RolloutBuffer:
    """Fixed arrays [T, B, ...]; ``add`` fills row after row until ``full``.

    Features are stored as the policy saw them, that is normalized and clipped, so that learning
    recomputes exactly the distribution that acted.
    """

    def __init__(
        self,
        schema: ObservationSchema,
        *,
        length: int,
        num_envs: int,
        num_replicas: int,
        priced: bool,
    ) -> None:
        """Begin with none of ``length`` steps; ``priced`` ones hold what every choice costs."""

        def column(dtype: type[_Scalar], *shape: int) -> NDArray[_Scalar]:
            return np.zeros((length, num_envs, *shape), dtype)

        self.replicas = column(np.float32, num_replicas, len(schema.replica))
        self.context = column(np.float32, len(schema.context))
        self.telemetry = column(np.float64, len(schema.telemetry))
        """Measured when the reward was known, a step after the action."""
        self.action = column(np.int64)
        self.log_prob = column(np.float64)
        self.value = column(np.float64)
        self.temperature = column(np.float64)
        self.reward = column(np.float64)
        self.raw_reward = column(np.float64)
        """Before scaling."""
        self.done = column(np.bool_)
        self.costs = column(np.float64, num_replicas if priced else 0)
        """Of every choice; NaN where they are not known."""
        self.columns: Row = dict(vars(self))
        """All of them by name."""
        self.length = length
        self.filled = 0

    @property
    def full(self) -> bool:
        return self.filled == self.length

    def add(self, row: Row) -> None:
        """Store a completed step, with all columns."""
        assert not self.full, "the rollout is full: update and clear before adding"
        assert row.keys() == self.columns.keys(), row.keys() ^ self.columns.keys()
        for name, column in self.columns.items():
            column[self.filled] = row[name]
        self.filled += 1

    def end_episodes(self) -> None:
        """Let the last step be the last of its episodes."""
        if self.filled:
            self.done[self.filled - 1] = True

    def clear(self) -> None:
        self.filled = 0

    def fits(self, state: StateDict) -> bool:
        """Return whether a state of equally many environments and replicas can be restored."""
        rows = state["rows"]
        return state["filled"] <= self.length and all(
            name in rows and rows[name].shape[2:] == column.shape[2:]
            for name, column in self.columns.items()
        )

    def state_dict(self, shards: Shards) -> StateDict:
        """Return the filled rows only: after an update a checkpoint carries an empty rollout.

        They are those of all environments. Like those of a torch module, the tensors of a process
        that has them all are the live ones.
        """
        filled = [column[: self.filled] for column in self.columns.values()]
        together = map(torch.from_numpy, shards.all_together(filled, axis=1))
        return {"filled": self.filled, "rows": dict(zip(self.columns, together, strict=True))}

    def load_state_dict(self, state: StateDict, envs: slice) -> None:
        """Go on with those rows of a state that are of these environments."""
        self.filled = state["filled"]
        for name, column in self.columns.items():
            column[: self.filled] = state["rows"][name].numpy()[:, envs]


@dataclass(frozen=True)
class RolloutOfAll:
    """What a full rollout looked like in all E environments, before any scaling.

    action [T, E]; reward [T, E]; components [K, E]: means of the reward's components.
    """

    action: NDArray[np.integer]
    reward: Floats
    components: Floats

    @classmethod
    def of(cls, own: RolloutBuffer, schema: ObservationSchema, shards: Shards) -> RolloutOfAll:
        """Put together what the processes have seen."""
        components = np.take(own.telemetry, schema.component_columns, axis=-1)
        # Step by step: the mean of a single column NumPy would take in another order.
        means = np.add.accumulate(components, axis=0)[-1] / own.length
        columns: list[NDArray[Any]] = [
            own.action.astype(np.int16),
            own.raw_reward,
            np.ascontiguousarray(means.T),
        ]
        return cls(*shards.all_together(columns, axis=1))

    def scalars(self, schema: ObservationSchema, num_replicas: int) -> dict[str, float]:
        """Return Rollout/Reward*, Actions/* and Reward/*."""
        shares = np.bincount(self.action.ravel(), minlength=num_replicas) / self.action.size
        means = self.components.mean(axis=1)
        return {
            "Rollout/RewardMean": float(self.reward.mean()),
            "Rollout/RewardStd": float(self.reward.std()),
            "Rollout/RewardMin": float(self.reward.min()),
            "Rollout/RewardMax": float(self.reward.max()),
            **{f"Actions/Replica_{i}": float(share) for i, share in enumerate(shares)},
            **{
                f"Reward/{name}": float(mean)
                for name, mean in zip(schema.reward_components, means, strict=True)
            },
        }
