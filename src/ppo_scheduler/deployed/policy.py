"""The policy in NumPy: the arithmetic of ``policy.network`` and ``policy.normalizer`` for one
decision, without their torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.deployed.document import Feature, Misfit, PolicyDocument, Weights, parse
from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats

NEAR_TIE = 1e-4
"""Difference of two logits below which rounding may decide: one choice is 1.0001 times as probable
as the other. Sums of a few hundred 32-bit products of order 1 to 100 round by 1e-7 to 1e-5."""

Array = NDArray[np.float32]

_LAYER_NORM_EPS = 1e-5


def _relu(inputs: Array) -> Array:
    outputs: Array = np.maximum(inputs, np.float32(0.0))
    return outputs


def _silu(inputs: Array) -> Array:
    half = inputs * np.float32(0.5)  # x * sigmoid(x), which exp could not do without overflow
    outputs: Array = half + half * np.tanh(half)
    return outputs


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": np.tanh, "relu": _relu, "silu": _silu}


class Snapshot(NamedTuple):
    """What the policy sees when a request arrives, in the order of its features, not normalized.

    replicas: float64 [R, F], one row per replica; context: float64 [C], the arriving request and
    the cluster as a whole.
    """

    replicas: Floats
    context: Floats


class RoutingPolicy:
    """Chooses a replica for each request. It keeps nothing between calls: threads may share it."""

    def __init__(self, document: PolicyDocument) -> None:
        """Take over a document.

        Raises:
            Misfit: its example gives other logits here.
        """
        network = document.network
        self.replica_features: tuple[Feature, ...] = document.replica
        self.context_features: tuple[Feature, ...] = document.context
        self.origin: Mapping[str, Any] = document.origin
        self._normalize_replicas = _Normalization(document.replica, document.clip)
        self._normalize_context = _Normalization(document.context, document.clip)
        self._activate = _ACTIVATIONS[network.activation]
        self._replica_input = _Linear(network.weights, "replica_input")
        self._context_weight = _inputs_first(network.weights, "context_input")
        self._encoder = [
            _Linear(network.weights, f"encoder.{layer}")
            for layer in range(network.encoder_layers - 1)
        ]
        self._attention = [
            _ReplicaAttention(network.weights, f"attention.{layer}", network.attention_heads)
            for layer in range(network.attention_layers)
        ]
        self._norm = _LayerNorm(network.weights, "norm")
        self._actor_head = _Linear(network.weights, "actor_head")
        self._check(document)

    @classmethod
    def load(cls, path: Path | str) -> RoutingPolicy:
        """Return the policy of a file that ``vidur-ppo checkpoints export`` wrote.

        Raises:
            UserError: there is no such file, it is damaged or of another version, or its example
                gives other logits here.
        """
        try:
            return cls(parse(Path(path).read_bytes()))
        except OSError as error:
            raise UserError(f"{path}: cannot read the policy ({error.strerror})") from None
        except Misfit as misfit:
            raise UserError(f"{path}: {misfit}; export the policy again") from None

    def route(self, snapshot: Snapshot) -> int:
        """Return the index of the most probable replica; ties go to the lowest one.

        Raises:
            UserError: the snapshot is not of the policy's features, or not of finite numbers.
        """
        return int(self.logits(snapshot).argmax())

    def logits(self, snapshot: Snapshot) -> Array:
        """Return a score per replica [R]: the logarithm of its probability, but for a constant.

        Raises:
            UserError: as ``route``.
        """
        replicas = np.asarray(snapshot.replicas, dtype=np.float64)
        context = np.asarray(snapshot.context, dtype=np.float64)
        self._check_fit(replicas, context)
        common = self._normalize_context(context) @ self._context_weight
        hidden = self._activate(self._replica_input(self._normalize_replicas(replicas)) + common)
        for layer in self._encoder:
            hidden = self._activate(layer(hidden))
        for block in self._attention:
            hidden = hidden + block(hidden)
        return self._actor_head(self._norm(hidden))[:, 0]

    def _check_fit(self, replicas: Floats, context: Floats) -> None:
        features, common = len(self.replica_features), len(self.context_features)
        if replicas.ndim != 2 or replicas.shape[1] != features or not len(replicas):
            raise UserError(
                f"a snapshot's replicas are of shape {list(replicas.shape)}, not [R, {features}]: "
                "give every replica_features of every replica, in their order"
            )
        if context.shape != (common,):
            raise UserError(
                f"a snapshot's context is of shape {list(context.shape)}, not [{common}]: give "
                "every context_features, in their order"
            )
        if not (np.isfinite(replicas).all() and np.isfinite(context).all()):
            raise UserError(
                f"a snapshot's {self._not_finite(replicas, context)} is not finite: give 0 for "
                "what has not happened yet"
            )

    def _not_finite(self, replicas: Floats, context: Floats) -> str:
        """Name the first number of a snapshot that is not finite."""
        bad = np.argwhere(~np.isfinite(replicas))
        if len(bad):
            replica, column = bad[0]
            return f"{self.replica_features[column].name} of replica {replica}"
        return self.context_features[int(np.argmin(np.isfinite(context)))].name

    def _check(self, document: PolicyDocument) -> None:
        example = document.example
        logits = self.logits(Snapshot(example.replicas, example.context))
        difference = float(np.abs(logits - example.logits).max())
        if not difference <= NEAR_TIE or logits.max() - logits[example.replica] > NEAR_TIE:
            raise Misfit(f"gives other logits for its example, by {difference:.2g}")


class _Normalization:
    def __init__(self, features: Sequence[Feature], clip: float) -> None:
        self._mean = np.array([feature.mean for feature in features])
        self._std = np.array([feature.std for feature in features])
        self._clip = clip

    def __call__(self, values: Floats) -> Array:
        """Map features [..., n] to [..., n]; 64 bits until they are small, as in training."""
        normalized = (values - self._mean) / self._std
        np.minimum(normalized, self._clip, out=normalized)
        np.maximum(normalized, -self._clip, out=normalized)
        features: Array = normalized.astype(np.float32)
        return features


def _inputs_first(weights: Weights, name: str) -> Array:
    return np.ascontiguousarray(weights[f"{name}.weight"].T)


class _Linear:
    def __init__(self, weights: Weights, name: str) -> None:
        self._weight = _inputs_first(weights, name)
        self._bias = weights[f"{name}.bias"]

    def __call__(self, inputs: Array) -> Array:
        """Map [R, inputs] to [R, outputs]."""
        outputs: Array = inputs @ self._weight
        outputs += self._bias
        return outputs


class _LayerNorm:
    def __init__(self, weights: Weights, name: str) -> None:
        self._weight, self._bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        self._share = np.float32(1.0 / len(self._weight))

    def __call__(self, inputs: Array) -> Array:
        """Map [R, H] to [R, H]."""
        centered = inputs - self._mean(inputs)
        centered /= np.sqrt(self._mean(centered * centered) + np.float32(_LAYER_NORM_EPS))
        centered *= self._weight
        centered += self._bias
        return centered

    def _mean(self, inputs: Array) -> Array:
        """Return [R, 1]; a third of the time of ``inputs.mean``."""
        mean: Array = np.add.reduce(inputs, axis=1, keepdims=True) * self._share
        return mean


class _ReplicaAttention:
    """What ``policy.network.ReplicaAttention`` adds to the hidden states."""

    def __init__(self, weights: Weights, name: str, heads: int) -> None:
        self._heads = heads
        self._norm = _LayerNorm(weights, f"{name}.norm")
        self._query_key_value = _Linear(weights, f"{name}.query_key_value")
        self._output = _Linear(weights, f"{name}.output")

    def __call__(self, hidden: Array) -> Array:
        """Map [R, H] to [R, H]."""
        replicas, width = hidden.shape
        packed = self._query_key_value(self._norm(hidden))
        packed = packed.reshape(replicas, 3, self._heads, width // self._heads)
        query, key, value = packed.transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1)
        scores *= np.float32(1.0 / math.sqrt(width // self._heads))
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = scores @ value / scores.sum(axis=2, keepdims=True)
        return self._output(mixed.transpose(1, 0, 2).reshape(replicas, width))
