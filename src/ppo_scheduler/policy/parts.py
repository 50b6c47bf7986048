"""A batch that goes through the network in parts, each of which has a gradient of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ppo_scheduler.policy.fused import FusedNetwork
from ppo_scheduler.policy.network import ActorCritic


class Parts(Protocol):
    """Normalized features [n, R, F] and [n, C] of several parts, N rows in all."""

    def outputs(self) -> tuple[Tensor, Tensor]:
        """Return logits [N, R] and values [N] of all parts, without a graph."""

    def gradients(self, of_logits: Tensor, of_values: Tensor | None) -> list[Tensor]:
        """Return each part's gradient by all parameters [P], one after the other.

        Args:
            of_logits: gradient of a loss by the logits [N, R].
            of_values: by the values [N]; None where it does not depend on them.
        """


class SplitNetwork:
    """Takes batches in parts, by compiled code where the network has it."""

    def __init__(self, network: ActorCritic) -> None:
        self._network = network
        self._fused = network.fused()

    def parts(self, replicas: Sequence[Tensor], context: Sequence[Tensor]) -> Parts:
        """Return the parts, whose gradients are those of the network as it is now."""
        if self._fused is None:
            return _TorchParts(self._network, replicas, context)
        return _FusedParts(self._fused, replicas, context)


class _TorchParts:
    """The network's own graph. Each part goes through it alone: its result depends on how many
    rows it takes at once."""

    def __init__(
        self, network: ActorCritic, replicas: Sequence[Tensor], context: Sequence[Tensor]
    ) -> None:
        self._parameters = list(network.parameters())
        self._outputs = [network(*rows) for rows in zip(replicas, context, strict=True)]
        self._sizes = [len(rows) for rows in context]

    def outputs(self) -> tuple[Tensor, Tensor]:
        logits, values = zip(*self._outputs, strict=True)
        return torch.cat(logits).detach(), torch.cat(values).detach()

    def gradients(self, of_logits: Tensor, of_values: Tensor | None) -> list[Tensor]:
        by_logits = of_logits.split(self._sizes)
        if of_values is None:
            return [
                self._gradient([logits], [by])
                for (logits, _), by in zip(self._outputs, by_logits, strict=True)
            ]
        by_both = zip(by_logits, of_values.split(self._sizes), strict=True)
        return [
            self._gradient(outputs, by) for outputs, by in zip(self._outputs, by_both, strict=True)
        ]

    def _gradient(self, outputs: Sequence[Tensor], by: Sequence[Tensor]) -> Tensor:
        found = torch.autograd.grad(outputs, self._parameters, by, allow_unused=True)
        return torch.cat(
            [
                torch.zeros(parameter.numel()) if gradient is None else gradient.flatten()
                for parameter, gradient in zip(self._parameters, found, strict=True)
            ]
        )


class _FusedParts:
    """The compiled network, for which it makes no difference what goes through together."""

    def __init__(
        self, network: FusedNetwork, replicas: Sequence[Tensor], context: Sequence[Tensor]
    ) -> None:
        self._network = network
        self._replicas, self._context = torch.cat(list(replicas)), torch.cat(list(context))
        self._sizes = [len(rows) for rows in context]

    def outputs(self) -> tuple[Tensor, Tensor]:
        logits, values = self._network.forward(self._replicas.numpy(), self._context.numpy())
        return torch.from_numpy(logits), torch.from_numpy(values)

    def gradients(self, of_logits: Tensor, of_values: Tensor | None) -> list[Tensor]:
        by_values = torch.zeros(len(of_logits)) if of_values is None else of_values
        bounds = np.cumsum([0, *self._sizes])
        return [
            torch.from_numpy(
                self._network.gradient(
                    *(
                        rows[first:last].numpy()
                        for rows in (self._replicas, self._context, of_logits, by_values)
                    )
                )
            )
            for first, last in pairwise(bounds)
        ]
