"""Behaviour cloning: trunk and actor head learn to choose what the teachers chose."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.ppo.adamw import AdamW
from ppo_scheduler.seeding import Purpose, generator, torch_seed
from ppo_scheduler.state import StateDict
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.taught_policy import TaughtPolicy, Watch

_POOR_AGREEMENT = 0.5
"""A warm start that agrees less with a teacher is pointed out."""


@dataclass(frozen=True)
class EpochReport:
    """One pass: mean training loss, held-out loss, held-out accuracy per teacher."""

    number: int
    train_loss: float
    holdout_loss: float
    accuracy: dict[str, float]

    def scalars(self) -> dict[str, float]:
        return {
            "WarmStart/TrainLoss": self.train_loss,
            "WarmStart/HoldoutLoss": self.holdout_loss,
            **{f"WarmStart/Accuracy_{name}": share for name, share in self.accuracy.items()},
        }

    def describe(self) -> str:
        agreement = ", ".join(f"{name} {share:.1%}" for name, share in self.accuracy.items())
        return (
            f"epoch {self.number}: loss {self.train_loss:.4f}, held-out {self.holdout_loss:.4f}, "
            f"agreement {agreement}"
        )

    def doubt(self) -> str | None:
        poor = [name for name, share in self.accuracy.items() if share < _POOR_AGREEMENT]
        if not poor:
            return None
        return (
            f"it chooses as {', '.join(poor)} in less than {_POOR_AGREEMENT:.0%} of held-out "
            "decisions: it has learned little. Raise warmstart.demo_requests or epochs, or teach "
            'with warmstart.method="costs"'
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Tensors:
    replicas: Tensor
    context: Tensor
    action: Tensor


def clone_behaviour(
    config: TrainingConfig,
    schema: ObservationSchema,
    demonstrations: Demonstrations,
    watch: Watch,
    *,
    initial: StateDict | None = None,
) -> TaughtPolicy:
    """Return the policy of the epoch with the lowest held-out loss.

    Feature statistics are those of the demonstrations; PPO goes on with them. The critic is left
    as it was drawn: it has nothing to imitate.

    Args:
        initial: state of a policy to fine-tune. It keeps its feature statistics, which its
            weights were trained with.

    Raises:
        UserError: demonstrations or initial policy were made for other features or another
            network.
    """
    demonstrations.check_schema(schema)
    seed, section = config.training.seed, config.warmstart
    policy = RoutingPolicy(
        schema,
        config.actor_critic_architecture,
        config.observation.clip,
        config.training.kernel,
    )
    observation = demonstrations.observation()
    if initial is None:
        policy.initialize(torch_seed(seed, Purpose.NETWORK_INIT))
        policy.collect(observation)
    else:
        policy.load_state_dict(initial)
    replicas, context = policy.normalize(observation)
    data = _Tensors(
        torch.from_numpy(replicas),
        torch.from_numpy(context),
        torch.from_numpy(demonstrations.action),
    )
    rng = generator(seed, Purpose.BEHAVIOUR_CLONING)
    train, holdout = split_by_teacher(demonstrations.teacher, section.holdout_fraction, rng)
    optimizer = AdamW(policy.network.parameters(), learning_rate=section.learning_rate)

    history: list[EpochReport] = []
    best = 0
    best_weights = copy.deepcopy(policy.network.state_dict())
    best_loss = np.inf
    for epoch in range(section.epochs):
        train_loss = _train_epoch(
            policy, optimizer, data, rng.permutation(train), section.batch_size
        )
        holdout_loss, accuracy = _evaluate(policy, data, holdout, demonstrations)
        history.append(EpochReport(epoch, train_loss, holdout_loss, accuracy))
        watch(history[-1])
        if holdout_loss < best_loss:
            best_loss, best = holdout_loss, epoch
            best_weights = copy.deepcopy(policy.network.state_dict())
        elif epoch - best >= section.patience:
            break
    policy.network.load_state_dict(best_weights)
    return TaughtPolicy(policy, best, history)


def split_by_teacher(
    teacher: NDArray[np.int64], holdout_fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row numbers (train, holdout); every teacher gives the same share, at least one row."""
    train: list[NDArray[np.int64]] = []
    holdout: list[NDArray[np.int64]] = []
    for index in np.unique(teacher):
        rows = rng.permutation(np.flatnonzero(teacher == index))
        held = max(1, round(len(rows) * holdout_fraction))
        holdout.append(rows[:held])
        train.append(rows[held:])
    return np.concatenate(train), np.concatenate(holdout)


def _train_epoch(
    policy: RoutingPolicy,
    optimizer: AdamW,
    data: _Tensors,
    order: NDArray[np.int64],
    batch_size: int,
) -> float:
    losses = []
    for rows in torch.from_numpy(order).split(batch_size):
        logits, _ = policy.network(data.replicas[rows], data.context[rows])
        loss = functional.cross_entropy(logits, data.action[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(rows))
    return float(np.sum(losses) / len(order))


@torch.no_grad()
def _evaluate(
    policy: RoutingPolicy,
    data: _Tensors,
    holdout: NDArray[np.int64],
    demonstrations: Demonstrations,
) -> tuple[float, dict[str, float]]:
    rows = torch.from_numpy(holdout)
    logits, _ = policy.network(data.replicas[rows], data.context[rows])
    loss = float(functional.cross_entropy(logits, data.action[rows]))
    right = (logits.argmax(dim=1) == data.action[rows]).numpy()
    teacher = demonstrations.teacher[holdout]
    accuracy = {
        name: float(right[teacher == index].mean())
        for index, name in enumerate(demonstrations.teachers)
        if (teacher == index).any()
    }
    return loss, accuracy
