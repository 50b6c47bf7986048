"""The compiled network, as torch and NumPy call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppo_scheduler.policy import kernel
from ppo_scheduler.policy.kernel import ACTIVATIONS, Array, Scratch, Weights


class FusedNetwork:
    """Computes with parameters of an ``ActorCritic`` without attention; they stay where they are.

    It makes the result of ``ActorCritic.forward``, apart from rounding.
    """

    def __init__(self, parameters: Mapping[str, Array], activation: str) -> None:
        """Take live parameters by their names in the network."""
        self._parameters = parameters
        self._weights = _by_role(parameters)
        self._activation = ACTIVATIONS.index(activation)
        self._of_tile_flat = np.zeros(sum(p.size for p in parameters.values()), np.float32)
        self._of_tile = _by_role(self._parts(self._of_tile_flat))

    def forward(self, replicas: Array, context: Array) -> tuple[Array, Array]:
        """Return logits [B, R] and values [B] of normalized features [B, R, F] and [B, C]."""
        tile, scratch = self._room(replicas)
        logits = np.empty(replicas.shape[:2], np.float32)
        values = np.empty(len(replicas), np.float32)
        kernel.forward(
            np.ascontiguousarray(replicas),
            np.ascontiguousarray(context),
            self._weights,
            scratch,
            self._activation,
            tile,
            logits,
            values,
        )
        return logits, values

    def backward(
        self, replicas: Array, context: Array, of_logits: Array, of_values: Array
    ) -> dict[str, Array]:
        """Return the parts of ``gradient`` by the parameters' names."""
        return self._parts(self.gradient(replicas, context, of_logits, of_values))

    def gradient(
        self, replicas: Array, context: Array, of_logits: Array, of_values: Array
    ) -> Array:
        """Return the gradient by all parameters [P], of a loss with these of the outputs.

        Args:
            of_logits: [B, R]; of_values: [B].
        """
        tile, scratch = self._room(replicas)
        total = np.zeros_like(self._of_tile_flat)
        kernel.backward(
            np.ascontiguousarray(replicas),
            np.ascontiguousarray(context),
            self._weights,
            scratch,
            self._activation,
            tile,
            np.ascontiguousarray(of_logits),
            np.ascontiguousarray(of_values),
            self._of_tile,
            self._of_tile_flat,
            total,
        )
        return total

    def _room(self, replicas: Array) -> tuple[int, Scratch]:
        """Return the decisions of a tile, and what they are computed in."""
        decisions, num_replicas, features = replicas.shape
        tile = kernel.tile_of(num_replicas, decisions)
        width, common = self._weights.context.shape
        layers = len(self._weights.layers)
        lanes = kernel.lanes_of(num_replicas, tile)
        return tile, kernel.scratch_for(features + common, width, layers, lanes)

    def _parts(self, flat: Array) -> dict[str, Array]:
        """Return parts of a vector, in the parameters' shapes."""
        parts: dict[str, Array] = {}
        first = 0
        for name, parameter in self._parameters.items():
            parts[name] = flat[first : first + parameter.size].reshape(parameter.shape)
            first += parameter.size
        return parts


def _by_role(parameters: Mapping[str, Array]) -> Weights:
    further = sum(name.startswith("encoder.") and name.endswith(".weight") for name in parameters)
    layers = ("replica_input", *(f"encoder.{layer}" for layer in range(further)))
    return Weights(
        layers=tuple(parameters[f"{layer}.weight"] for layer in layers),
        biases=tuple(parameters[f"{layer}.bias"] for layer in layers),
        context=parameters["context_input.weight"],
        gain=parameters["norm.weight"],
        shift=parameters["norm.bias"],
        actor=parameters["actor_head.weight"],
        critic=parameters["critic_head.weight"],
        actor_bias=parameters["actor_head.bias"],
        critic_bias=parameters["critic_head.bias"],
    )


class Fused(torch.autograd.Function):
    """One node of torch's graph: the whole network. Features have no gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: str,
        names: tuple[str, ...],
        replicas: Tensor,
        context: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return logits [B, R] and values [B]; ``names`` are those of the parameters."""
        ctx.save_for_backward(replicas, context, *parameters)
        ctx.activation, ctx.names = activation, names
        ctx.set_materialize_grads(False)
        network = _network(activation, names, parameters)
        logits, values = network.forward(replicas.numpy(), context.numpy())
        return torch.from_numpy(logits), torch.from_numpy(values)

    @staticmethod
    def backward(
        ctx: Any, of_logits: Tensor | None, of_values: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the parameters, after four of what has none.

        The head of an output that the loss does not know has none either, as with torch.
        """
        replicas, context, *parameters = ctx.saved_tensors
        network = _network(ctx.activation, ctx.names, parameters)
        batch, num_replicas, _ = replicas.shape
        gradients = network.backward(
            replicas.numpy(),
            context.numpy(),
            np.zeros((batch, num_replicas), np.float32) if of_logits is None else of_logits.numpy(),
            np.zeros(batch, np.float32) if of_values is None else of_values.numpy(),
        )
        unknown = {
            head
            for head, gradient in (("actor_head", of_logits), ("critic_head", of_values))
            if gradient is None
        }
        of_parameters = (
            None if name.split(".")[0] in unknown else torch.from_numpy(gradients[name])
            for name in ctx.names
        )
        return (None, None, None, None, *of_parameters)


def _network(
    activation: str, names: tuple[str, ...], parameters: list[Tensor] | tuple[Tensor, ...]
) -> FusedNetwork:
    arrays = (parameter.detach().numpy() for parameter in parameters)
    return FusedNetwork(dict(zip(names, arrays, strict=True)), activation)
