"""The one action distribution: a categorical over replicas at a behaviour temperature.

Acting and learning both go through these functions with the temperature that is stored beside the
action, so every probability ratio is 1 before the first gradient step of an update.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def log_probabilities(logits: Tensor, temperature: Tensor) -> Tensor:
    """Return log pi(. | s) [B, R] of logits [B, R] at temperatures [B]."""
    return functional.log_softmax(logits / temperature.unsqueeze(-1), dim=-1)


def sample(log_probs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one action per row of log pi [B, R] by inverting the cumulative distribution."""
    cumulative = np.cumsum(np.exp(log_probs.astype(np.float64)), axis=1)
    draws = rng.random(len(log_probs)) * cumulative[:, -1]
    actions = (cumulative <= draws[:, None]).sum(axis=1)
    drawn: NDArray[np.int64] = np.minimum(actions, log_probs.shape[1] - 1)
    return drawn


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy [B] of log pi [B, R], in nats."""
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def kl_divergence(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return KL(pi || reference) [B] of two log probability tables [B, R], in nats."""
    return (log_probs.exp() * (log_probs - reference_log_probs)).sum(dim=-1)
