"""Taking over a policy as it is, and proving that it was.

A file that loads without an error proves nothing: only the same choices do.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.policy_file import load_policy, save_policy
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.env.schema import observation_schema

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
