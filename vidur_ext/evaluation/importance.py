"""What a policy looks at: how it chooses when it is shown some of its features of other moments.

Permutation importance (Breiman, "Random Forests", 2001), on decisions instead of labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Floats, Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.runner import held_out_workloads, routing_environments
from vidur_ext.routing.features import feature_families
from vidur_ext.vidur.engine_inputs import engine_cluster

_WORKLOADS = 8
_DECISIONS = 384
"""At most, of each workload; its first third meets a cluster that fills."""

_STATES = 1024
_REPLICAS = 16_384
"""States at most, and replicas in all of them together."""

_PERMUTATIONS = 3


@dataclass(frozen=True)
class FamilyImportance:
    """Features that tell the same, and what becomes of decisions that are shown wrong ones.

    Attributes:
        names: of the features, as in ``docs/features.md``.
        common: whether they are of what replicas share.
        changed: share of the decisions that go to another replica.
        cost: what these decisions cost more, mean of all [request-seconds], by the price that
            look-ahead gives every choice. Below 0 the policy would do better without.
    """

    names: tuple[str, ...]
    common: bool
    changed: float
    cost: float

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        return {**vars(self), "names": list(self.names)}


@dataclass(frozen=True)
class Importance:
    """Every family, the one that changes most decisions first."""

    policy: str
    states: int
    families: tuple[FamilyImportance, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values, fit for strict JSON."""
        return {
            "policy": self.policy,
            "states": self.states,
            "permutations": _PERMUTATIONS,
            "families": [family.to_dict() for family in self.families],
        }


def importance_of(config: TrainingConfig, name: str, policy: RoutingPolicy) -> Importance:
    """Return what a policy looks at, on decisions of the held-out workloads.

    A family is shuffled over states as a whole, and all replicas together: what is shown is that of
    another moment. Equal configs and policies give equal figures.

    Args:
        name: what the policy is called.

    Raises:
        UserError: the compiled engine does not simulate the cluster.
    """
    observation, costs = _states(config, policy)
    rng = generator(config.training.seed, Purpose.PERMUTATION)
    chosen = policy.greedy(observation)
    rows = np.arange(len(chosen))
    families = []
    for names, common, columns in _families(config, policy):
        changed, more = [], []
        for _ in range(_PERMUTATIONS):
            others = rng.permutation(len(rows))
            shown = _shuffled(observation, others, columns, common=common)
            elsewhere = policy.greedy(shown)
            changed.append(np.mean(elsewhere != chosen))
            more.append(np.mean(costs[rows, elsewhere] - costs[rows, chosen]))
        families.append(
            FamilyImportance(names, common, float(np.mean(changed)), float(np.mean(more)))
        )
    families.sort(key=lambda one: one.changed, reverse=True)
    return Importance(name, len(rows), tuple(families))


def _families(
    config: TrainingConfig, policy: RoutingPolicy
) -> Iterator[tuple[tuple[str, ...], bool, list[int]]]:
    """Yield names, whether replicas share them, and columns."""
    schema, families = policy.schema, feature_families(config.observation)
    for columns in families.replica:
        yield tuple(schema.replica[column] for column in columns), False, columns
    for columns in families.context:
        yield tuple(schema.context[column] for column in columns), True, columns


def _shuffled(
    observation: Observation, others: NDArray[np.int64], columns: list[int], *, common: bool
) -> Observation:
    """Return the observations with some columns of others."""
    if common:
        context = observation.context.copy()
        context[:, columns] = observation.context[others][:, columns]
        return replace(observation, context=context)
    replicas = observation.replicas.copy()
    replicas[:, :, columns] = observation.replicas[others][:, :, columns]
    return replace(observation, replicas=replicas)


def _states(config: TrainingConfig, policy: RoutingPolicy) -> tuple[Observation, Floats]:
    """Return S states that the policy came to, and what every choice costs in them [S, R]."""
    count = min(config.evaluation.num_seeds, _WORKLOADS)
    tables = list(held_out_workloads(config, range(count)).values())
    decisions = min(len(tables[0]), _DECISIONS)
    states = min(_STATES, max(_REPLICAS // config.cluster.num_replicas, 1))
    kept = np.linspace(decisions // 3, decisions - 1, -(-states // count)).astype(int)
    envs = routing_environments(config, engine_cluster(config), count)
    envs.begin(tables)
    seen, costs = [], []
    for decision in range(decisions):
        if decision in kept:
            seen.append(envs.observation)
            costs.append(envs.costs(np.ones(count, dtype=np.bool_)))
        envs.step(policy.greedy(envs.observation))
    together = Observation(
        *(
            np.concatenate([getattr(one, part) for one in seen])
            for part in ("replicas", "context", "telemetry")
        )
    )
    return together, np.concatenate(costs)
