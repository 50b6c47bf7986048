"""A permutation-equivariant actor-critic over any number of replicas."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppo_scheduler.config.learner_sections import ArchitectureSection, Kernel
from ppo_scheduler.policy.fused import Fused, FusedNetwork

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "silu": functional.silu,
}


def _linear(layer: Any, inputs: Tensor) -> Tensor:
    """Apply a linear layer. With a batch of one, a module call costs more than its arithmetic."""
    return functional.linear(inputs, layer.weight, layer.bias)


def _norm(layer: nn.LayerNorm, inputs: Tensor) -> Tensor:
    return functional.layer_norm(inputs, layer.normalized_shape, layer.weight, layer.bias)


class ReplicaAttention(nn.Module):
    """Pre-norm residual self-attention across replicas (Vaswani et al. 2017), no positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, R, H] to [B, R, H]."""
        batch, replicas, width = hidden.shape
        packed = _linear(self.query_key_value, _norm(self.norm, hidden))
        packed = packed.view(batch, replicas, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        joined = mixed.transpose(1, 2).reshape(batch, replicas, width)
        return hidden + _linear(self.output, joined)


class ActorCritic(nn.Module):
    """Scores every replica with shared weights; the value is read from their mean.

    Because no layer knows a replica's position or the number of replicas, permuting the
    replicas permutes the logits, and one set of weights serves any cluster size.
    """

    def __init__(
        self,
        replica_features: int,
        context_features: int,
        section: ArchitectureSection,
        kernel: Kernel = "fused",
    ) -> None:
        """``kernel`` computes ``forward``; attention is torch's in any case."""
        super().__init__()
        width = section.hidden_size
        self.is_fused = kernel == "fused" and section.attention_layers == 0
        """Whether compiled code computes ``forward``."""
        self._activation = section.activation
        self._activate = _ACTIVATIONS[section.activation]
        self.replica_input = nn.Linear(replica_features, width)
        self.context_input = nn.Linear(context_features, width, bias=False)
        self.encoder = nn.ModuleList(
            nn.Linear(width, width) for _ in range(section.encoder_layers - 1)
        )
        self.attention = nn.ModuleList(
            ReplicaAttention(width, section.attention_heads)
            for _ in range(section.attention_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.actor_head = nn.Linear(width, 1)
        self.critic_head = nn.Linear(width, 1)

    def initialize(self, generator: torch.Generator, orthogonal: bool) -> None:
        """Draw all weights from ``generator``; with ``orthogonal``, near-uniform first actions."""
        gains = {self.actor_head: 0.01, self.critic_head: 1.0}
        for module in self.modules():
            if not isinstance(module, nn.Linear):
                continue
            bound = 1.0 / math.sqrt(module.in_features)
            if orthogonal:
                gain = gains.get(module, math.sqrt(2))
                nn.init.orthogonal_(module.weight, gain, generator=generator)
            else:
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def frozen(self) -> ActorCritic:
        """Return a copy that no optimizer reaches."""
        frozen = copy.deepcopy(self)
        frozen.requires_grad_(False)
        return frozen.eval()

    def fused(self) -> FusedNetwork | None:
        """Return what computes with these very parameters in compiled code, if anything does."""
        if not self.is_fused:
            return None
        parameters = {name: p.detach().numpy() for name, p in self.named_parameters()}
        return FusedNetwork(parameters, self._activation)

    def encode(self, replicas: Tensor, context: Tensor) -> Tensor:
        """Map normalized features [B, R, F] and [B, C] to hidden states [B, R, H]."""
        hidden = _linear(self.replica_input, replicas)
        hidden = hidden + _linear(self.context_input, context).unsqueeze(1)
        hidden = self._activate(hidden)
        for layer in self.encoder:
            hidden = self._activate(_linear(layer, hidden))
        for block in self.attention:
            hidden = block.forward(hidden)
        return _norm(self.norm, hidden)

    def heads(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Map hidden states [B, R, H] to logits [B, R] and values [B]."""
        logits = _linear(self.actor_head, hidden).squeeze(-1)
        value = _linear(self.critic_head, hidden.mean(dim=1)).squeeze(-1)
        assert logits.shape == hidden.shape[:2]
        assert value.shape == hidden.shape[:1]
        return logits, value

    def forward(self, replicas: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, R] and values [B] of normalized features [B, R, F], [B, C]."""
        if self.is_fused:
            parameters = dict(self.named_parameters())
            logits, values = Fused.apply(
                self._activation, tuple(parameters), replicas, context, *parameters.values()
            )
            return logits, values
        return self.heads(self.encode(replicas, context))
