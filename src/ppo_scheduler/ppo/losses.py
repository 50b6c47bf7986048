"""The terms of the PPO objective, each a pure function of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(ratio: Tensor, advantage: Tensor, clip_ratio: float) -> Tensor:
    """Clipped surrogate objective, negated (Schulman et al. 2017, equation 7)."""
    clipped = ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half squared error of the value, optionally limited to +-clip of the old value."""
    error = (value - target).square()
    if clip is not None:
        limited = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (limited - target).square())
    return 0.5 * error.mean()


def balance_loss(log_probs: Tensor) -> Tensor:
    """KL of the mean action distribution of a batch [B, R] to the uniform one, in nats."""
    mean = log_probs.exp().mean(dim=0)
    return (mean * (mean.clamp_min(1e-12) * len(mean)).log()).sum()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Low-variance estimate of KL(old || new): mean of (r - 1) - log r (Schulman 2020)."""
    return (log_ratio.exp() - 1.0 - log_ratio).mean()
