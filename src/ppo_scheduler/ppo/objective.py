"""The formulas of PPO, each a pure function: the action distribution, advantages and losses.

The distribution is a categorical over replicas at a behavior temperature. Acting and learning both
go through it with the temperature that is stored beside the action, so every probability ratio is 1
before the first gradient step of an update.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ppo_scheduler.compiled import compiled_entry
from ppo_scheduler.observation import Floats


def log_probabilities(logits: Tensor, temperature: Tensor) -> Tensor:
    """Return log pi(. | s) [B, R] of logits [B, R] at temperatures [B]."""
    return functional.log_softmax(logits / temperature.unsqueeze(-1), dim=-1)


def draw(
    logits: NDArray[np.float32], temperature: Floats, uniform: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Return an action [B] for logits [B, R], drawn at temperatures [B], and its log-probability.

    Args:
        uniform: random numbers [B] in [0, 1), by which the cumulative distribution is inverted.
    """
    actions, chosen = np.empty(len(logits), np.int64), np.empty(len(logits))
    _draw(logits, temperature.astype(np.float32), uniform, actions, chosen)
    return actions, chosen


@compiled_entry
def _draw(
    logits: NDArray[np.float32],
    temperature: NDArray[np.float32],
    uniform: Floats,
    actions: NDArray[np.int64],
    chosen: Floats,
) -> None:
    """Write actions [B] and their log-probabilities [B]."""
    num_replicas = logits.shape[1]
    for row in range(len(logits)):
        largest, total = -np.inf, 0.0
        for replica in range(num_replicas):
            largest = max(largest, logits[row, replica] / temperature[row])
        for replica in range(num_replicas):
            total += math.exp(logits[row, replica] / temperature[row] - largest)
        action, passed = 0, 0.0
        for replica in range(num_replicas):
            # Never one whose probability is 0: who draws more than there is gets the last other.
            share = math.exp(logits[row, replica] / temperature[row] - largest)
            if share > 0.0:
                action = replica
            passed += share
            if passed > uniform[row] * total:
                break
        actions[row] = action
        chosen[row] = logits[row, action] / temperature[row] - largest - math.log(total)


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy [B] of log pi [B, R], in nats."""
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def kl_divergence(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return KL(pi || reference) [B] of two log probability tables [B, R], in nats."""
    return (log_probs.exp() * (log_probs - reference_log_probs)).sum(dim=-1)


def advantages_and_returns(
    rewards: Floats,
    values: Floats,
    dones: NDArray[np.bool_],
    next_value: Floats,
    discounts: Floats,
    gae_lambda: float,
) -> tuple[Floats, Floats]:
    """Return advantages and lambda-returns, both [T, B] (Schulman et al. 2016, equation 16).

    Args:
        rewards: [T, B], the reward of the interval after each action.
        values: [T, B], the critic's value of each state.
        dones: [T, B], true where the action was the last of its episode.
        next_value: [B], value of the state after the last action (ignored where done).
        discounts: [T, B], of what follows each interval; see ``discount``.
    """
    advantages = np.empty_like(rewards)
    following_value = next_value
    following_advantage = np.zeros_like(next_value)
    for step in range(len(rewards) - 1, -1, -1):
        alive = 1.0 - dones[step]
        kept = discounts[step] * alive
        delta = rewards[step] + kept * following_value - values[step]
        following_advantage = delta + gae_lambda * kept * following_advantage
        advantages[step] = following_advantage
        following_value = values[step]
    return advantages, advantages + values


def discount(elapsed_s: Floats, horizon_s: float) -> Floats:
    """Return what the future counts after so much time: by the clock, not per decision."""
    return np.asarray(np.exp(-elapsed_s / horizon_s))


def advantages_of_choices(costs: Tensor, log_probs: Tensor) -> Tensor:
    """Return how much less each choice costs than the policy's mean [N, R], of costs [N, R]."""
    return (log_probs.exp() * costs).sum(dim=-1, keepdim=True) - costs


def within_deviations(advantage: Tensor, deviation: float, clip: float) -> Tensor:
    """Return advantages of choices in standard deviations, clipped to [-clip, clip]."""
    return (advantage / (deviation + 1e-8)).clamp(-clip, clip)


def explained_variance(predicted: Floats, target: Floats) -> float:
    """Return 1 - Var(target - predicted) / Var(target); 0 for a constant target."""
    variance = float(np.var(target))
    return 0.0 if variance == 0.0 else 1.0 - float(np.var(target - predicted)) / variance


def policy_loss(ratio: Tensor, advantage: Tensor, clip_ratio: float) -> Tensor:
    """Clipped surrogate of each action [N], negated (Schulman et al. 2017, equation 7)."""
    clipped = ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio)
    return -torch.minimum(ratio * advantage, clipped * advantage)


def policy_loss_of_choices(
    log_probs: Tensor, behavior: Tensor, advantage: Tensor, clip_ratio: float
) -> Tensor:
    """Clipped surrogate objective with its mean over actions taken exactly [N], negated.

    Args:
        log_probs: log pi [N, R].
        behavior: log of the distribution that acted [N, R].
        advantage: of every choice [N, R].
    """
    ratio = (log_probs - behavior).exp()
    clipped = ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    return -(behavior.exp() * surrogate).sum(dim=-1)


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half squared error of each value [N], optionally limited to +-clip of the old value."""
    error = (value - target).square()
    if clip is not None:
        limited = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (limited - target).square())
    return 0.5 * error


def balance_loss(mean: Tensor) -> Tensor:
    """KL of each of S mean action distributions [S, R] to the uniform one [S], in nats."""
    return (mean * (mean.clamp_min(1e-12) * mean.shape[-1]).log()).sum(dim=-1)


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Low-variance estimates of KL(old || new) [N]: (r - 1) - log r (Schulman 2020)."""
    return log_ratio.exp() - 1.0 - log_ratio
