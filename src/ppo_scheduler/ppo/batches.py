"""What is learned from: decisions of one or more shards, with what their choices were worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from ppo_scheduler.config.learner_sections import PPOSection
from ppo_scheduler.observation import Floats
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.ppo.objective import (
    advantages_of_choices,
    approximate_kl,
    kl_divergence,
    log_probabilities,
    policy_loss,
    policy_loss_of_choices,
    value_loss,
    within_deviations,
)
from ppo_scheduler.ppo.rollout import RolloutBuffer

Statistics = dict[str, Tensor]
"""Values of each decision [N] by the logged names of their mean."""


@dataclass(frozen=True)
class Batch(ABC):
    """N decisions to learn from: what was seen, and the temperature that was acted at."""

    logged: ClassVar[tuple[str, ...]]
    """What ``surrogate`` tells beside the loss, by its logged names."""
    needs_values: ClassVar[bool]
    """Whether the loss depends on the critic."""

    replicas: Tensor
    context: Tensor
    temperature: Tensor

    def __len__(self) -> int:
        return len(self.temperature)

    def rows(self, index: Tensor) -> Self:
        """Return the decisions of these numbers."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: column[index] for name, column in columns.items()})

    @classmethod
    def joined(cls, parts: Sequence[Batch]) -> Batch:
        """Return the decisions of all parts, which are of one kind, one after the other."""
        columns = [field.name for field in fields(parts[0])]
        return type(parts[0])(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in columns}
        )

    @abstractmethod
    def surrogate(
        self, log_probs: Tensor, value: Tensor, section: PPOSection
    ) -> tuple[Tensor, Statistics]:
        """Return the loss that the advantages make of each decision [N], and what is logged of it.

        Args:
            log_probs: log pi [N, R] at the temperatures.
            value: [N].
        """


@dataclass(frozen=True)
class SampledBatch(Batch):
    """Decisions of a rollout with what their actions were worth: GAE and the critic's target."""

    logged = (
        "Training/PolicyLoss",
        "Training/ValueLoss",
        "Training/ApproxKL",
        "Training/ClipFraction",
    )
    needs_values = True

    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor

    @classmethod
    def from_rollout(
        cls, rollout: RolloutBuffer, envs: slice, advantage: Floats, target: Floats
    ) -> Self:
        """Take the columns that have the name of a field; numbers with a point as float32.

        Args:
            envs: whose decisions.
            advantage: [T, B]; target: [T, B].
        """
        names = {field.name for field in fields(cls)}
        seen = {name: _flat(c[:, envs]) for name, c in rollout.columns.items() if name in names}
        return cls(**seen, advantage=_flat(advantage[:, envs]), target=_flat(target[:, envs]))

    def surrogate(
        self, log_probs: Tensor, value: Tensor, section: PPOSection
    ) -> tuple[Tensor, Statistics]:
        log_ratio = log_probs.gather(1, self.action.unsqueeze(1)).squeeze(1) - self.log_prob
        ratio = log_ratio.exp()
        policy = policy_loss(ratio, self.advantage, section.clip_ratio)
        critic = value_loss(value, self.value, self.target, section.value_clip)
        clipped = ((ratio - 1.0).abs() > section.clip_ratio).float()
        return policy + section.value_coef * critic, {
            "Training/PolicyLoss": policy,
            "Training/ValueLoss": critic,
            "Training/ApproxKL": approximate_kl(log_ratio),
            "Training/ClipFraction": clipped,
        }


@dataclass(frozen=True)
class PricedBatch(Batch):
    """Decisions whose choices are priced: the advantage of each of them [N, R].

    behavior [N, R]: log-probabilities of the policy that acted.
    """

    logged = ("Training/PolicyLoss", "Training/ApproxKL", "Training/ClipFraction")
    needs_values = False

    behavior: Tensor
    advantage: Tensor

    @classmethod
    @torch.no_grad()
    def from_rollout(cls, rollout: RolloutBuffer, envs: slice, network: ActorCritic) -> Self:
        """Take the decisions that are priced.

        Args:
            envs: whose decisions.
            network: the one that acted.
        """
        costs = rollout.costs[:, envs]
        priced = ~np.isnan(costs).any(axis=-1)
        names = ("replicas", "context", "temperature")
        seen = {name: _tensor(rollout.columns[name][:, envs][priced]) for name in names}
        logits, _ = network(seen["replicas"], seen["context"])
        behavior = log_probabilities(logits, seen["temperature"])
        of_choices = torch.from_numpy(costs[priced])
        advantage = advantages_of_choices(of_choices, behavior.double()).float()
        return cls(**seen, behavior=behavior, advantage=advantage)

    def scaled(self, deviation: float, clip: float, *, normalize: bool) -> Self:
        """Return the batch with advantages within ``clip`` standard deviations.

        Args:
            deviation: standard deviation of the advantages, those of other shards included.
            normalize: express them in standard deviations.
        """
        within = within_deviations(self.advantage, deviation, clip)
        return replace(self, advantage=within * (1.0 if normalize else deviation))

    def surrogate(
        self, log_probs: Tensor, value: Tensor, section: PPOSection
    ) -> tuple[Tensor, Statistics]:
        policy = policy_loss_of_choices(
            log_probs, self.behavior, self.advantage, section.clip_ratio
        )
        moved = ((log_probs - self.behavior).exp() - 1.0).abs() > section.clip_ratio
        clipped = (self.behavior.exp() * moved).sum(dim=-1)
        return policy, {
            "Training/PolicyLoss": policy,
            "Training/ApproxKL": kl_divergence(self.behavior, log_probs),
            "Training/ClipFraction": clipped,
        }


def _flat(array: NDArray[np.generic]) -> Tensor:
    """Return columns [T, B, ...] as [T * B, ...]."""
    return _tensor(array.reshape(-1, *array.shape[2:]))


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """Return an array in memory of torch's own, numbers with a point as float32.

    How its products are rounded depends on whether rows lie apart, and on where the first begins.
    """
    tensor = torch.tensor(array)
    return tensor.float() if tensor.is_floating_point() else tensor
