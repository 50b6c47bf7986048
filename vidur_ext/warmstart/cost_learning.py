"""Learning from costs: the policy that makes the expected cost of its choices small.

Every round the policy is fitted to all decisions that were priced so far (dataset aggregation;
Ross, Gordon and Bagnell 2011). The loss is the mean over states of sum_a pi(a|s) * cost(s, a), of
costs less their mean over the choices, in standard deviations.
"""

from __future__ import annotations

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


def learn_from_costs(
    config: TrainingConfig,
    schema: ObservationSchema,
    first: Demonstrations,
    watch: Watch,
    *,
    initial: StateDict | None = None,
) -> TaughtPolicy:
    """Return the policy of the last round.

    Feature statistics are those of the first round's states; PPO goes on with them. The critic is
    left as it was drawn.

    Args:
        first: the first round's decisions; the policy itself routes those of the others.
        initial: state of a policy to begin with. It keeps its feature statistics.

    Raises:
        UserError: the decisions were made for other features, or the policy for another network.
    """
    first.check_schema(schema)
    assert first.priced, "a set is checked before it is loaded, and what is collected has prices"
    seed, section = config.training.seed, config.warmstart
    policy = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    if initial is None:
        policy.initialize(torch_seed(seed, Purpose.NETWORK_INIT))
        policy.collect(first.observation())
    else:
        policy.load_state_dict(initial)
    # It knows no output lengths of the first round: a set of that round teaches the very same.
    labels = CostLabels(config)
    rng = generator(seed, Purpose.BEHAVIOUR_CLONING)
    train: list[_Tensors] = []
    held_out: list[_Tensors] = []
    history: list[RoundReport] = []
    for number in range(section.rounds):
        decisions = first if number == 0 else labels.collect(number, policy)
        # The last simulations are held out, not rows at random: neighbours in time are too alike.
        held = max(1, round(len(decisions) * section.holdout_fraction))
        held = min(held, len(decisions) - 1)
        data = _tensors(policy, decisions)
        train.append(_rows(data, slice(None, -held)))
        held_out.append(_rows(data, slice(-held, None)))
        known = _Tensors.joined(train)
        _fit(policy, known, config, rng)
        report = _judge(policy, _Tensors.joined(held_out), number, len(known.costs))
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
    policy: RoutingPolicy, labels: _Tensors, config: TrainingConfig, rng: np.random.Generator
) -> None:
    section = config.warmstart
    saved = labels.costs.mean(dim=1, keepdim=True) - labels.costs
    gain = within_deviations(saved, config.ppo_config.advantage_clip)
    optimizer = AdamW(policy.network.parameters(), learning_rate=section.learning_rate)
    for step in range(section.steps_per_round):
        progress = step / section.steps_per_round
        optimizer.learning_rate = section.learning_rate * (1.0 - (1.0 - _FINAL_RATE) * progress)
        drawn: NDArray[np.int64] = rng.integers(0, len(gain), section.batch_size)
        rows = torch.from_numpy(drawn)
        logits, _ = policy.network(labels.replicas[rows], labels.context[rows])
        log_probs = torch.log_softmax(logits, dim=-1)
        gained = (log_probs.exp() * gain[rows]).sum(dim=-1)
        loss = -(gained + section.entropy_coef * entropy(log_probs)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _judge(policy: RoutingPolicy, held_out: _Tensors, number: int, labels: int) -> RoundReport:
    logits, _ = policy.network(held_out.replicas, held_out.context)
    chosen = held_out.costs.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)
    best = held_out.costs.amin(dim=1)
    return RoundReport(
        number,
        labels,
        float((chosen - best).mean()),
        float((held_out.costs.mean(dim=1) - best).mean()),
        float((chosen == best).float().mean()),
    )
