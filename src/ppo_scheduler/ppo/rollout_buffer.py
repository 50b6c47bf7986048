"""The rollout: what was seen, done and earned since the last update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.state import StateDict


@dataclass
class Transition:
    """One step of B environments. The reward follows a step later."""

    replicas: NDArray[np.float32]
    context: NDArray[np.float32]
    telemetry: NDArray[np.float64]
    action: NDArray[np.int64]
    log_prob: NDArray[np.float64]
    value: NDArray[np.float64]
    temperature: NDArray[np.float64]


class RolloutBuffer:
    """Fixed arrays [T, B, ...]; ``add`` fills row after row until ``full``.

    Features are stored as the policy saw them, that is normalised and clipped, so that learning
    recomputes exactly the distribution that acted.
    """

    _ROWS = (
        "replicas", "context", "telemetry", "action", "log_prob", "value", "temperature",
        "reward", "raw_reward", "done",
    )  # fmt: skip

    def __init__(
        self,
        length: int,
        num_envs: int,
        num_replicas: int,
        replica_features: int,
        context_features: int,
        telemetry: int,
    ) -> None:
        rows = (length, num_envs)
        self.length = length
        self.filled = 0
        self.replicas = np.zeros((*rows, num_replicas, replica_features), np.float32)
        self.context = np.zeros((*rows, context_features), np.float32)
        self.telemetry = np.zeros((*rows, telemetry), np.float64)
        self.action = np.zeros(rows, np.int64)
        self.log_prob = np.zeros(rows, np.float64)
        self.value = np.zeros(rows, np.float64)
        self.temperature = np.zeros(rows, np.float64)
        self.reward = np.zeros(rows, np.float64)
        self.raw_reward = np.zeros(rows, np.float64)
        self.done = np.zeros(rows, np.bool_)

    @property
    def full(self) -> bool:
        return self.filled == self.length

    def add(
        self,
        transition: Transition,
        reward: NDArray[np.float64],
        raw_reward: NDArray[np.float64],
        done: NDArray[np.bool_],
        telemetry: NDArray[np.float64],
    ) -> None:
        """Store a completed step: its scaled and raw reward and what was measured after it."""
        assert not self.full, "the rollout is full: update and clear before adding"
        row = self.filled
        self.replicas[row] = transition.replicas
        self.context[row] = transition.context
        self.telemetry[row] = telemetry
        self.action[row] = transition.action
        self.log_prob[row] = transition.log_prob
        self.value[row] = transition.value
        self.temperature[row] = transition.temperature
        self.reward[row] = reward
        self.raw_reward[row] = raw_reward
        self.done[row] = done
        self.filled += 1

    def clear(self) -> None:
        self.filled = 0

    def state_dict(self) -> StateDict:
        """Return the filled rows only: after an update a checkpoint carries an empty rollout.

        Like those of a torch module, the tensors are the live ones.
        """
        rows = {name: torch.from_numpy(getattr(self, name)[: self.filled]) for name in self._ROWS}
        return {"filled": self.filled, "rows": rows}

    def load_state_dict(self, state: StateDict) -> None:
        self.filled = state["filled"]
        for name in self._ROWS:
            getattr(self, name)[: self.filled] = state["rows"][name].numpy()
