"""A policy file of elsewhere: whether it can begin a training of this config, and taking it over.

A file that loads without an error proves nothing: only the same choices do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import (
    RoutingPolicy,
    load_policy,
    read_policy_state,
    save_policy,
)
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema


@dataclass(frozen=True)
class ModelReport:
    """What a policy file holds that fits."""

    path: Path
    size_bytes: int
    parameters: int
    """Weights of the network."""
    replica_features: int
    context_features: int
    schema: str
    """Digest of the names of the features."""
    architecture: dict[str, Any]
    states_seen: int
    """Rows of replica features behind the statistics."""


def check_model(path: Path, config: TrainingConfig) -> ModelReport:
    """Check that a policy can begin a training; nothing is written.

    Raises:
        UserError: there is no such file, it is no policy file or a damaged one, or its features,
            network, clip or weights do not fit this config; the text says which.
    """
    state = read_policy_state(path)
    schema = observation_schema(config.observation)
    policy = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    try:
        policy.load_state_dict(state)
    except IncompatibleState as error:
        raise UserError(f"{path}: does not fit this config: {error}") from None
    if state["clip"] != config.observation.clip:
        raise UserError(
            f"{path}: was trained with observation.clip={state['clip']}, this config says "
            f"{config.observation.clip}: set it as it was"
        )
    return ModelReport(
        path=path,
        size_bytes=path.stat().st_size,
        parameters=sum(weight.numel() for weight in policy.network.parameters()),
        replica_features=len(schema.replica),
        context_features=len(schema.context),
        schema=schema.digest(),
        architecture=dict(state["architecture"]),
        states_seen=policy.replica_statistics.count,
    )


_LOG = logging.getLogger("ppo")
PROBES = 512
_SPREAD = 2.0
"""Standard deviations of the probes, in those of the features the policy has seen."""


def adopt(source: Path, target: Path, config: TrainingConfig) -> None:
    """Copy a policy file; the copy chooses as the original does.

    Raises:
        UserError: the file is no policy, one that does not fit, or the copy chooses differently.
    """
    schema = observation_schema(config.observation)
    save_policy(load_policy(source, schema), target)
    log_same_choices(source, load_policy(target, schema), config.cluster.num_replicas)


def log_same_choices(source: Path, loaded: RoutingPolicy, num_replicas: int) -> None:
    """Log that ``loaded`` chooses as the policy of a file does.

    Raises:
        UserError: it does not, or the file cannot be read.
    """
    count = same_choices(load_policy(source, loaded.schema), loaded, num_replicas)
    if count != PROBES:
        raise UserError(
            f"{source}: the policy loaded from it chooses differently in {PROBES - count} of "
            f"{PROBES} probe states: the file changed meanwhile, or the disk is faulty; try again"
        )
    _LOG.info("loaded %s: it chooses the same in all of %d probe states", source, PROBES)


def same_choices(before: RoutingPolicy, after: RoutingPolicy, num_replicas: int) -> int:
    """Return in how many of ``PROBES`` states two policies choose the same replica."""
    observation = _probes(before, num_replicas)
    return int((before.greedy(observation) == after.greedy(observation)).sum())


def _probes(policy: RoutingPolicy, num_replicas: int) -> Observation:
    """Return states around those the policy's statistics come from, the same at every call."""
    rng = np.random.default_rng(0)
    replicas, context = policy.replica_statistics, policy.context_statistics
    noise = _SPREAD * rng.normal(size=(PROBES, num_replicas, len(replicas.mean)))
    more = _SPREAD * rng.normal(size=(PROBES, len(context.mean)))
    return Observation(
        replicas.mean + replicas.std * noise,
        context.mean + context.std * more,
        np.zeros((PROBES, 0)),
    )
