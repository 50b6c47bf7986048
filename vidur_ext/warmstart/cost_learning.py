"""Learning from costs: the policy that makes the expected cost of its choices small.

Every round the policy is fitted to all decisions that were priced so far (dataset aggregation;
Ross, Gordon and Bagnell 2011). The loss is the mean over states of sum_a pi(a|s) * cost(s, a), of
costs less their mean over the choices, in standard deviations of the cluster's. Several clusters
take turns, a gradient step each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.ppo.adamw import AdamW
from ppo_scheduler.ppo.objective import entropy, within_deviations
from ppo_scheduler.seeding import Purpose, generator, torch_seed
from ppo_scheduler.state import StateDict
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.warmstart.cost_labels import CostLabels
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.taught_policy import TaughtPolicy, Watch

_FINAL_RATE = 0.1
"""Of the learning rate, at the end of a round."""

_POOR_REGRET = 0.5
"""A warm start with more of the regret of random choices is pointed out."""


@dataclass(frozen=True)
class RoundReport:
    """One round: decisions learned from so far, and how the policy does on those held out.

    regret: what its choices cost more than the best ones, on average [request-seconds];
    regret_at_random: what random ones do; agreement: share of the best choices.
    """

    number: int
    labels: int
    regret: float
    regret_at_random: float
    agreement: float

    def scalars(self) -> dict[str, float]:
        return {
            "WarmStart/Labels": float(self.labels),
            "WarmStart/HoldoutRegret": self.regret,
            "WarmStart/HoldoutRegretAtRandom": self.regret_at_random,
            "WarmStart/HoldoutAgreement": self.agreement,
        }

    def describe(self) -> str:
        return (
            f"round {self.number}: {self.labels} priced decisions, held-out regret "
            f"{self.regret:.3f} request-seconds (at random {self.regret_at_random:.3f}), "
            f"{self.agreement:.1%} best choices"
        )

    def doubt(self) -> str | None:
        share = self.regret / self.regret_at_random if self.regret_at_random > 0.0 else 0.0
        if share <= _POOR_REGRET:
            return None
        return (
            f"its choices cost {share:.0%} of what random ones do on held-out decisions: it has "
            "learned little. Raise warmstart.labels_per_round, rounds or steps_per_round"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Tensors:
    """replicas [N, R, F] and context [N, C], normalized; costs [N, R]."""

    replicas: Tensor
    context: Tensor
    costs: Tensor

    @classmethod
    def joined(cls, parts: list[_Tensors]) -> _Tensors:
        return cls(
            torch.cat([part.replicas for part in parts]),
            torch.cat([part.context for part in parts]),
            torch.cat([part.costs for part in parts]),
        )


class Lessons:
    """What one cluster teaches: all of its priced decisions so far."""

    def __init__(self, config: TrainingConfig, first: Demonstrations) -> None:
        """Begin with none.

        Args:
            first: the first round's decisions; the policy itself routes those of the others.
        """
        assert first.priced, "a set is checked before it is loaded, and what is collected has costs"
        self.config = config
        self.first = first
        # It knows no output lengths of the first round: a set of that round teaches the very same.
        self._labels = CostLabels(config)
        self._held_share = config.warmstart.holdout_fraction
        self._train: list[_Tensors] = []
        self._held_out: list[_Tensors] = []

    def go_on(self, number: int, policy: RoutingPolicy) -> None:
        """Add the decisions of round ``number``."""
        decisions = self.first if number == 0 else self._labels.collect(number, policy)
        # The last simulations are held out, not rows at random: neighbours in time are too alike.
        held = max(1, round(len(decisions) * self._held_share))
        held = min(held, len(decisions) - 1)
        data = _tensors(policy, decisions)
        self._train.append(_rows(data, slice(None, -held)))
        self._held_out.append(_rows(data, slice(-held, None)))

    @property
    def known(self) -> _Tensors:
        """What is learned from."""
        return _Tensors.joined(self._train)

    @property
    def held_out(self) -> _Tensors:
        """What is judged on."""
        return _Tensors.joined(self._held_out)


def learn_from_costs(
    clusters: Sequence[Lessons],
    schema: ObservationSchema,
    watch: Watch,
    *,
    initial: StateDict | None = None,
) -> TaughtPolicy:
    """Return the policy of the last round.

    Feature statistics are those of the first round's states; PPO goes on with them. The critic is
    left as it was drawn.

    Args:
        clusters: what to learn on; how, the first one's config says.
        initial: state of a policy to begin with. It keeps its feature statistics.

    Raises:
        UserError: the decisions were made for other features, or the policy for another network.
    """
    for cluster in clusters:
        cluster.first.check_schema(schema)
    config = clusters[0].config
    policy = RoutingPolicy(
        schema,
        config.actor_critic_architecture,
        config.observation.clip,
        config.training.kernel,
    )
    if initial is None:
        policy.initialize(torch_seed(config.training.seed, Purpose.NETWORK_INIT))
        for cluster in clusters:
            policy.collect(cluster.first.observation())
    else:
        policy.load_state_dict(initial)
    rng = generator(config.training.seed, Purpose.BEHAVIOUR_CLONING)
    history: list[RoundReport] = []
    for number in range(config.warmstart.rounds):
        for cluster in clusters:
            cluster.go_on(number, policy)
        _fit(policy, [cluster.known for cluster in clusters], config, rng)
        report = _judge(policy, clusters, number)
        history.append(report)
        watch(report)
    return TaughtPolicy(policy, len(history) - 1, history)


def _tensors(policy: RoutingPolicy, decisions: Demonstrations) -> _Tensors:
    replicas, context = policy.normalize(decisions.observation())
    return _Tensors(
        torch.from_numpy(replicas),
        torch.from_numpy(context),
        torch.from_numpy(decisions.costs),
    )


def _rows(data: _Tensors, rows: slice) -> _Tensors:
    return _Tensors(data.replicas[rows], data.context[rows], data.costs[rows])


def _fit(
    policy: RoutingPolicy,
    clusters: Sequence[_Tensors],
    config: TrainingConfig,
    rng: np.random.Generator,
) -> None:
    section = config.warmstart
    gains = [_gains(labels, config.ppo_config.advantage_clip) for labels in clusters]
    optimizer = AdamW(policy.network.parameters(), learning_rate=section.learning_rate)
    steps = section.steps_per_round * len(clusters)
    for step in range(steps):
        progress = step / steps
        optimizer.learning_rate = section.learning_rate * (1.0 - (1.0 - _FINAL_RATE) * progress)
        labels, gain = clusters[step % len(clusters)], gains[step % len(clusters)]
        drawn: NDArray[np.int64] = rng.integers(0, len(gain), section.batch_size)
        rows = torch.from_numpy(drawn)
        logits, _ = policy.network(labels.replicas[rows], labels.context[rows])
        log_probs = torch.log_softmax(logits, dim=-1)
        gained = (log_probs.exp() * gain[rows]).sum(dim=-1)
        loss = -(gained + section.entropy_coef * entropy(log_probs)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _gains(labels: _Tensors, clip: float) -> Tensor:
    """Return what each choice [N, R] gains over the mean of all, in standard deviations."""
    gained = labels.costs.mean(dim=1, keepdim=True) - labels.costs
    return within_deviations(gained, float(gained.std()), clip)


@torch.no_grad()
def _judge(policy: RoutingPolicy, clusters: Sequence[Lessons], number: int) -> RoundReport:
    regret, at_random, agreed = [], [], []
    for held_out in (cluster.held_out for cluster in clusters):
        logits, _ = policy.network(held_out.replicas, held_out.context)
        chosen = held_out.costs.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)
        best = held_out.costs.amin(dim=1)
        regret.append(chosen - best)
        at_random.append(held_out.costs.mean(dim=1) - best)
        agreed.append((chosen == best).float())
    return RoundReport(
        number,
        sum(len(cluster.known.costs) for cluster in clusters),
        float(torch.cat(regret).mean()),
        float(torch.cat(at_random).mean()),
        float(torch.cat(agreed).mean()),
    )
