"""The file of a deployed policy: JSON, so that any language reads it and nothing in it runs.

``docs/deploy.md`` describes it for those who read it in another language.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Floats
from ppo_scheduler.sealed_json import is_sealed, sealed

VERSION = 1
ACTIVATIONS = ("tanh", "relu", "silu")

_FORMAT = "ppo_scheduler deployed policy"
_CHECKSUM = "sha256"
_LARGEST = 4096
"""Width or number of layers: a file may ask for any, and each is looked for."""
_PARTS = ("format", "version", "features", "clip", "network", "example", "origin")

Weights = dict[str, NDArray[np.float32]]


class Misfit(ValueError):
    """What a file holds is no policy that can be deployed; the text says where and why."""


@dataclass(frozen=True)
class Feature:
    """One number that the policy sees, and how it is normalized.

    mean, std: of training, in the feature's unit; std is 1 where nothing varied.
    """

    name: str
    unit: str
    meaning: str
    mean: float
    std: float


@dataclass(frozen=True)
class Network:
    """Sizes as in the config's ``actor_critic_architecture``, and the weights that score replicas.

    Weights are named as in training, linear ones are [outputs, inputs]; there is no critic.
    """

    hidden_size: int
    encoder_layers: int
    attention_layers: int
    attention_heads: int
    activation: str
    weights: Weights

    def shapes(self, replica: int, context: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of every weight, for F and C features."""
        width = self.hidden_size
        yield from _linear("replica_input", replica, width)
        yield "context_input.weight", (width, context)
        for layer in range(self.encoder_layers - 1):
            yield from _linear(f"encoder.{layer}", width, width)
        for layer in range(self.attention_layers):
            block = f"attention.{layer}"
            yield from _norm(f"{block}.norm", width)
            yield from _linear(f"{block}.query_key_value", width, 3 * width)
            yield from _linear(f"{block}.output", width, width)
        yield from _norm("norm", width)
        yield from _linear("actor_head", width, 1)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


@dataclass(frozen=True)
class Example:
    """Features [R, F] and [C] with the logits [R] and the choice that they must give."""

    replicas: Floats
    context: Floats
    logits: Floats
    replica: int


@dataclass(frozen=True)
class PolicyDocument:
    """All that the file holds.

    replica, context: the features of every replica and those in common, in the policy's order.
    clip: normalized features are clipped to [-clip, clip].
    origin: where the policy comes from and how its features are computed, as whoever exported it
        says; JSON values that are carried, not read here.
    """

    replica: tuple[Feature, ...]
    context: tuple[Feature, ...]
    clip: float
    network: Network
    example: Example
    origin: Mapping[str, Any]

    def to_json(self) -> bytes:
        """Return the content of the file.

        Raises:
            Misfit: it could not be read again, e.g. since a weight is not finite.
        """
        network, example = vars(self.network), vars(self.example)
        tree = {
            "format": _FORMAT,
            "version": VERSION,
            "features": {
                "replica": [vars(feature) for feature in self.replica],
                "context": [vars(feature) for feature in self.context],
            },
            "clip": self.clip,
            "network": {
                **network,
                "weights": {name: array.tolist() for name, array in self.network.weights.items()},
            },
            "example": {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in example.items()
            },
            "origin": self.origin,
        }
        content = sealed(_text(tree).encode(), _CHECKSUM)
        parse(content)
        return content


def parse(content: bytes) -> PolicyDocument:
    """Return the document in the content of a file, every part of it checked.

    Raises:
        Misfit: it is none, damaged, of another version, or does not fit together.
    """
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Misfit(f"is not JSON ({error}): it is cut off, or no exported policy") from None
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        raise Misfit(f"is not a policy to deploy: its format is not {_FORMAT!r}")
    if tree.get("version") != VERSION:
        raise Misfit(
            f"has version {tree.get('version')}, this program reads version {VERSION}: use the "
            "program that wrote it"
        )
    if not is_sealed(content, _CHECKSUM):
        raise Misfit("is damaged or was edited: its sha256 is another")
    parts = _object(tree, "the file", (*_PARTS, _CHECKSUM))
    features = _object(parts["features"], "features", ("replica", "context"))
    replica = _features(features["replica"], "features.replica")
    context = _features(features["context"], "features.context")
    if not isinstance(parts["origin"], dict):
        raise Misfit("origin is no object")
    return PolicyDocument(
        replica=replica,
        context=context,
        clip=_positive(parts["clip"], "clip"),
        network=_network(parts["network"], len(replica), len(context)),
        example=_example(parts["example"], len(replica), len(context)),
        origin=parts["origin"],
    )


def _features(value: object, where: str) -> tuple[Feature, ...]:
    if not isinstance(value, list) or not value:
        raise Misfit(f"{where} is no list of features")
    features = tuple(_feature(item, f"{where}[{place}]") for place, item in enumerate(value))
    names = [feature.name for feature in features]
    if len(set(names)) != len(names):
        raise Misfit(f"{where} has a name twice")
    return features


def _feature(value: object, where: str) -> Feature:
    parts = _object(value, where, ("name", "unit", "meaning", "mean", "std"))
    for key in ("name", "unit", "meaning"):
        if not isinstance(parts[key], str):
            raise Misfit(f"{where}.{key} is no text")
    mean = float(numbers(parts["mean"], (), f"{where}.mean"))
    return Feature(
        parts["name"],
        parts["unit"],
        parts["meaning"],
        mean,
        _positive(parts["std"], f"{where}.std"),
    )


def _network(value: object, replica: int, context: int) -> Network:
    sizes = ("hidden_size", "encoder_layers", "attention_layers", "attention_heads")
    parts = _object(value, "network", (*sizes, "activation", "weights"))
    for key in sizes:
        least = 0 if key == "attention_layers" else 1
        if type(parts[key]) is not int or not least <= parts[key] <= _LARGEST:
            raise Misfit(f"network.{key} is no whole number from {least} to {_LARGEST}")
    if parts["hidden_size"] % parts["attention_heads"]:
        raise Misfit("network.attention_heads does not divide network.hidden_size")
    if parts["activation"] not in ACTIVATIONS:
        raise Misfit(f"network.activation is none of {', '.join(ACTIVATIONS)}")
    network = Network(**parts)
    shapes = dict(network.shapes(replica, context))
    found = _object(parts["weights"], "network.weights", tuple(shapes))
    weights = {
        name: numbers(found[name], shape, f"network.weights.{name}", np.float32)
        for name, shape in shapes.items()
    }
    return Network(**{**parts, "weights": weights})


def _example(value: object, replica: int, context: int) -> Example:
    parts = _object(value, "example", ("replicas", "context", "logits", "replica"))
    count = len(parts["logits"]) if isinstance(parts["logits"], list) else 0
    choice = parts["replica"]
    if type(choice) is not int or not 0 <= choice < count:
        raise Misfit("example.replica is none of the replicas that example.logits scores")
    return Example(
        replicas=numbers(parts["replicas"], (count, replica), "example.replicas"),
        context=numbers(parts["context"], (context,), "example.context"),
        logits=numbers(parts["logits"], (count,), "example.logits"),
        replica=choice,
    )


def _object(value: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return a JSON object that has these keys and no others."""
    if not isinstance(value, dict):
        raise Misfit(f"{where} is no object")
    if lacking := [key for key in keys if key not in value]:
        raise Misfit(f"{where} lacks {lacking[0]}")
    if unknown := [key for key in value if key not in keys]:
        raise Misfit(f"{where} has {unknown[0]}, which this program does not know")
    return value


def _positive(value: object, where: str) -> float:
    number = float(numbers(value, (), where))
    if number <= 0.0:
        raise Misfit(f"{where} is not above 0")
    return number


def numbers(value: object, shape: tuple[int, ...], where: str, dtype: type = np.float64) -> Any:
    """Return an array of finite numbers of a shape.

    Raises:
        Misfit: it is something else.
    """
    try:
        array = np.array(value)
    except (ValueError, RecursionError):  # rows of different lengths, or of endless depth
        raise Misfit(f"{where} is not of shape {list(shape)}: its rows differ in length") from None
    if array.dtype.kind not in "if":
        raise Misfit(f"{where} holds something else than numbers")
    if array.shape != shape:
        raise Misfit(f"{where} is of shape {list(array.shape)}, not {list(shape)}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise Misfit(f"{where} holds a number that is not finite")
    return array


def _text(value: Any, margin: str = "") -> str:
    """Return JSON in which whatever holds no list or object is one line: rows stay readable."""
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inner, list) or not any(isinstance(item, dict | list) for item in inner):
        return json.dumps(value, ensure_ascii=False)
    below = f"{margin}  "
    keys = (
        [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    )
    rows = [below + key + _text(item, below) for key, item in zip(keys, inner, strict=True)]
    left, right = "{}" if isinstance(value, dict) else "[]"
    return left + "\n" + ",\n".join(rows) + f"\n{margin}{right}"
