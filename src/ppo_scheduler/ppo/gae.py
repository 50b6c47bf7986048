"""Generalised advantage estimation (Schulman et al. 2016, equation 16)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def advantages_and_returns(
    rewards: Floats,
    values: Floats,
    dones: NDArray[np.bool_],
    next_value: Floats,
    gamma: float,
    gae_lambda: float,
) -> tuple[Floats, Floats]:
    """Return advantages and lambda-returns, both [T, B].

    Args:
        rewards: [T, B], the reward of the interval after each action.
        values: [T, B], the critic's value of each state.
        dones: [T, B], true where the action was the last of its episode.
        next_value: [B], value of the state after the last action (ignored where done).
    """
    advantages = np.empty_like(rewards)
    following_value = next_value
    following_advantage = np.zeros_like(next_value)
    for step in range(len(rewards) - 1, -1, -1):
        alive = 1.0 - dones[step]
        delta = rewards[step] + gamma * following_value * alive - values[step]
        following_advantage = delta + gamma * gae_lambda * alive * following_advantage
        advantages[step] = following_advantage
        following_value = values[step]
    return advantages, advantages + values


def explained_variance(predicted: Floats, target: Floats) -> float:
    """Return 1 - Var(target - predicted) / Var(target); 0 for a constant target."""
    variance = float(np.var(target))
    return 0.0 if variance == 0.0 else 1.0 - float(np.var(target - predicted)) / variance
