"""From a policy in training to the file that ``ppo_scheduler.deployed`` routes by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_scheduler.deployed.document import Example, Feature, Misfit, Network, PolicyDocument
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import write_file
from ppo_scheduler.observation import Floats, Observation
from ppo_scheduler.policy.normalizer import RunningMeanStd
from ppo_scheduler.policy.routing_policy import RoutingPolicy

_EXAMPLE_REPLICAS = 4


class Meaning(NamedTuple):
    """What one number that the policy sees is."""

    unit: str
    meaning: str


def export_policy(
    policy: RoutingPolicy,
    path: Path,
    replica: Mapping[str, Meaning],
    context: Mapping[str, Meaning],
    origin: Mapping[str, Any],
) -> None:
    """Write the file of a policy to be deployed, durably; what had the name is replaced.

    Args:
        replica, context: what the features of replicas and those in common are, by name.
        origin: where the policy comes from and how its features are computed: JSON values for
            whoever reads the file.

    Raises:
        UserError: the policy has seen nothing yet, or holds weights that are not finite.
        OSError: the disk refuses.
    """
    if policy.replica_statistics.count == 0:
        raise UserError(
            "the policy has seen no observation yet, so that its features have no statistics: "
            "export a later checkpoint"
        )
    document = PolicyDocument(
        replica=_features(policy.schema.replica, replica, policy.replica_statistics),
        context=_features(policy.schema.context, context, policy.context_statistics),
        clip=policy.clip,
        network=_network(policy),
        example=_example(policy),
        origin=origin,
    )
    try:
        content = document.to_json()
    except Misfit as misfit:
        raise UserError(f"the policy cannot be deployed: {misfit}; export another") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)


def _features(
    names: tuple[str, ...], meanings: Mapping[str, Meaning], statistics: RunningMeanStd
) -> tuple[Feature, ...]:
    moments = zip(statistics.mean.tolist(), statistics.std.tolist(), strict=True)
    return tuple(
        Feature(name, *meanings[name], mean, std)
        for name, (mean, std) in zip(names, moments, strict=True)
    )


def _network(policy: RoutingPolicy) -> Network:
    architecture = policy.architecture
    weights = {
        name: tensor.numpy()
        for name, tensor in policy.network.state_dict().items()
        if not name.startswith("critic_head.")
    }
    return Network(
        architecture.hidden_size,
        architecture.encoder_layers,
        architecture.attention_layers,
        architecture.attention_heads,
        architecture.activation,
        weights,
    )


def _example(policy: RoutingPolicy) -> Example:
    """Return a decision around what the policy saw, of no real cluster.

    The last replica is so far off that some of its features are clipped.
    """
    rng = np.random.default_rng(0)
    spread = np.ones((_EXAMPLE_REPLICAS, 1))
    spread[-1] = policy.clip
    replicas = _drawn(policy.replica_statistics, spread, rng)
    context = _drawn(policy.context_statistics, np.ones((1, 1)), rng)
    observation = Observation(replicas[None], context, np.empty((1, 0)))
    logits = policy.evaluate(policy.normalize(observation))[0][0].numpy().astype(np.float64)
    return Example(replicas, context[0], logits, int(logits.argmax()))


def _drawn(statistics: RunningMeanStd, spread: Floats, rng: np.random.Generator) -> Floats:
    """Return rows [N, n] around the mean, each with its spread [N, 1] in standard deviations."""
    draws = rng.standard_normal((len(spread), len(statistics.mean)))
    return statistics.mean + draws * spread * statistics.std
