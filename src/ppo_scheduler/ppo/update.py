"""One PPO update: some epochs of minibatches over a rollout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppo_scheduler.config.learner_sections import OptimizationSection, PPOSection
from ppo_scheduler.observation import Floats
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.ppo.adamw import AdamW
from ppo_scheduler.ppo.objective import (
    approximate_kl,
    balance_loss,
    entropy,
    kl_divergence,
    log_probabilities,
    policy_loss,
    value_loss,
)
from ppo_scheduler.ppo.rollout import RolloutBuffer
from ppo_scheduler.state import StateDict


class AdaptiveMinibatch:
    """Doubles the minibatch after a KL early stop and halves it after a calm update.

    Larger minibatches make fewer and less noisy steps per epoch, so the policy moves less; a calm
    update, which ended with less than half the target KL, has room for more.
    """

    def __init__(self, section: OptimizationSection, initial: int) -> None:
        """Begin with ``initial`` decisions per minibatch, within the bounds if it is to adapt."""
        self.size = initial
        self._section = section

    def after_update(self, stopped_early: bool, approx_kl: float, target_kl: float | None) -> None:
        """Set the size for the next update from how this one ended."""
        if not self._section.adaptive_minibatch:
            return
        if stopped_early:
            self.size = self._within_bounds(self.size * 2)
        elif target_kl is not None and approx_kl < target_kl / 2:
            self.size = self._within_bounds(self.size // 2)

    def _within_bounds(self, size: int) -> int:
        low, high = self._section.min_minibatch_size, self._section.max_minibatch_size
        return min(max(size, low), high)

    def state_dict(self) -> StateDict:
        return {"size": self.size}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the size within today's bounds; one that does not adapt is the config's."""
        if self._section.adaptive_minibatch:
            self.size = self._within_bounds(state["size"])


_KL_STOP_FACTOR = 1.5
_RIDGE = 1e-3


@dataclass(frozen=True)
class Batch:
    """A flattened rollout, N = T * B decisions."""

    replicas: Tensor
    context: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    temperature: Tensor
    advantage: Tensor
    target: Tensor
    reference: Tensor | None = None
    """Log-probabilities [N, R] of the reference policy at temperature 1, if there is one."""

    @classmethod
    def from_rollout(cls, rollout: RolloutBuffer, advantage: Floats, target: Floats) -> Batch:
        """Take the columns that have the name of a field; numbers with a point as float32."""

        def flat(array: NDArray[np.generic]) -> Tensor:
            tensor = torch.from_numpy(array.reshape(-1, *array.shape[2:]))
            return tensor.float() if tensor.is_floating_point() else tensor

        fields = cls.__dataclass_fields__
        seen = {name: flat(c) for name, c in rollout.columns.items() if name in fields}
        return cls(**seen, advantage=flat(advantage), target=flat(target))

    def __len__(self) -> int:
        return len(self.action)

    def rows(self, index: Tensor) -> Batch:
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        present = {name: column for name, column in columns.items() if column is not None}
        return Batch(**{name: column[index] for name, column in present.items()})


@dataclass(frozen=True)
class Coefficients:
    """Scheduled weights that hold during one update."""

    learning_rate: float
    entropy: float
    reference_kl: float


@dataclass(frozen=True)
class GradientStep:
    """One step of the optimizer, or one that was skipped because it was not finite."""

    epoch: int
    finite: bool
    statistics: dict[str, float]


class PPOUpdater:
    """Owns the optimizer; its ``update`` reads like the algorithm of the paper."""

    def __init__(
        self, network: ActorCritic, section: PPOSection, optimization: OptimizationSection
    ) -> None:
        self.network = network
        self.reference: ActorCritic | None = None
        self.minibatch = AdaptiveMinibatch(optimization, section.minibatch_size)
        self.optimizer = AdamW(
            network.parameters(),
            learning_rate=section.learning_rate,
            eps=section.adam_eps,
            weight_decay=section.weight_decay,
        )
        self._section = section
        self._accumulation = optimization.accumulation_steps
        self._skipped_in_a_row = 0

    def keep_reference(self) -> None:
        """Make the policy of this moment the one that the KL term refers to."""
        self.reference = self.network.frozen()

    def fit_critic(self, batch: Batch) -> dict[str, float]:
        """Solve the value head alone by ridge regression on the returns; the policy stays."""
        with torch.no_grad():
            hidden = self.network.encode(batch.replicas, batch.context).mean(dim=1).double()
            mean = hidden.mean(dim=0)
            centered = hidden - mean
            target = batch.target.double()
            gram = centered.T @ centered
            gram += _RIDGE * len(batch) * torch.eye(len(gram), dtype=torch.float64)
            weight = torch.linalg.solve(gram, centered.T @ (target - target.mean()))
            self.network.critic_head.weight.copy_(weight.unsqueeze(0))
            self.network.critic_head.bias.copy_(target.mean() - weight @ mean)
            error = centered @ weight + target.mean() - target
        return {"Training/ValueLoss": 0.5 * float(error.square().mean())}

    def update(
        self, batch: Batch, coefficients: Coefficients, rng: np.random.Generator
    ) -> dict[str, float]:
        """Run the epochs; return the means of what was seen, under their logged names.

        Raises:
            FloatingPointError: too many gradient steps in a row were not finite.
        """
        self.optimizer.learning_rate = coefficients.learning_rate
        # The same in all epochs, so it is computed once.
        batch = replace(batch, reference=self._reference_log_probs(batch))
        steps: list[GradientStep] = []
        stopped = False
        for step in self._gradient_steps(batch, coefficients, rng):
            steps.append(step)
            stopped = step.finite and self._passed_target(step.statistics["Training/ApproxKL"])
            if stopped:
                break
        means = _means([step.statistics for step in steps if step.finite])
        result = {
            **means,
            "Training/LearningRate": coefficients.learning_rate,
            "Training/EntropyCoef": coefficients.entropy,
            "Training/ReferenceKLCoef": coefficients.reference_kl,
            "Training/MinibatchSize": float(self.minibatch.size),
            "Training/EpochsDone": float(steps[-1].epoch if stopped else self._section.epochs),
            "Training/SkippedSteps": float(sum(not step.finite for step in steps)),
        }
        self.minibatch.after_update(
            stopped, means.get("Training/ApproxKL", float("nan")), self._section.target_kl
        )
        return result

    def _passed_target(self, approx_kl: float) -> bool:
        target = self._section.target_kl
        return target is not None and approx_kl > _KL_STOP_FACTOR * target

    def _gradient_steps(
        self, batch: Batch, coefficients: Coefficients, rng: np.random.Generator
    ) -> Iterator[GradientStep]:
        """Make the steps of all epochs, each when it is asked for."""
        for epoch in range(self._section.epochs):
            order = torch.from_numpy(rng.permutation(len(batch)))
            minibatches = order.split(self.minibatch.size)
            for first in range(0, len(minibatches), self._accumulation):
                accumulated = minibatches[first : first + self._accumulation]
                statistics, finite = self._step([batch.rows(i) for i in accumulated], coefficients)
                yield GradientStep(epoch, finite, statistics)

    def _step(
        self, minibatches: list[Batch], coefficients: Coefficients
    ) -> tuple[dict[str, float], bool]:
        """Make one optimizer step from one or more accumulated minibatches, if it is finite."""
        self.optimizer.zero_grad()
        statistics: list[dict[str, float]] = []
        for minibatch in minibatches:
            loss, values = self._loss(minibatch, coefficients)
            (loss / len(minibatches)).backward()
            statistics.append(values)
        norm = float(
            nn.utils.clip_grad_norm_(self.network.parameters(), self._section.max_grad_norm)
        )
        finite = bool(np.isfinite(norm)) and all(
            np.isfinite(list(s.values())).all() for s in statistics
        )
        if finite:
            self._skipped_in_a_row = 0
            self.optimizer.step()
        else:
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row >= self._section.max_nonfinite_steps:
                raise FloatingPointError(
                    f"{self._skipped_in_a_row} gradient steps in a row were not finite; the "
                    "weights are still those of the last finite step. Lower "
                    "ppo_config.learning_rate or resume from an earlier checkpoint"
                )
        return {**_means(statistics), "Training/GradientNorm": norm}, finite

    def _loss(self, batch: Batch, weights: Coefficients) -> tuple[Tensor, dict[str, float]]:
        section = self._section
        logits, value = self.network(batch.replicas, batch.context)
        log_probs = log_probabilities(logits, batch.temperature)
        log_ratio = log_probs.gather(1, batch.action.unsqueeze(1)).squeeze(1) - batch.log_prob
        ratio = log_ratio.exp()

        surrogate = policy_loss(ratio, batch.advantage, section.clip_ratio)
        critic = value_loss(value, batch.value, batch.target, section.value_clip)
        mean_entropy = entropy(log_probs).mean()
        balance = balance_loss(log_probs)
        reference_kl = self._reference_kl(batch, logits)
        loss = (
            surrogate
            + section.value_coef * critic
            - weights.entropy * mean_entropy
            + section.action_balance_coef * balance
            + weights.reference_kl * reference_kl
        )
        with torch.no_grad():
            clipped = ((ratio - 1.0).abs() > section.clip_ratio).float().mean()
            statistics = {
                "Training/PolicyLoss": surrogate,
                "Training/ValueLoss": critic,
                "Training/Entropy": mean_entropy,
                "Training/ActionBalance": balance,
                "Training/ReferenceKL": reference_kl,
                "Training/ApproxKL": approximate_kl(log_ratio),
                "Training/ClipFraction": clipped,
            }
            return loss, {name: float(tensor) for name, tensor in statistics.items()}

    @torch.no_grad()
    def _reference_log_probs(self, batch: Batch) -> Tensor | None:
        if self.reference is None:
            return None
        logits, _ = self.reference(batch.replicas, batch.context)
        return log_probabilities(logits, torch.ones(()).expand(len(batch)))

    def _reference_kl(self, batch: Batch, logits: Tensor) -> Tensor:
        if batch.reference is None:
            return torch.zeros(())
        own = log_probabilities(logits, torch.ones(()).expand(len(batch)))
        return kl_divergence(own, batch.reference).mean()

    def state_dict(self, *, with_optimizer: bool) -> StateDict:
        return {
            "minibatch": self.minibatch.state_dict(),
            "skipped_in_a_row": self._skipped_in_a_row,
            "adamw": self.optimizer.state_dict() if with_optimizer else None,
            "reference": None
            if self.reference is None
            else nn.utils.parameters_to_vector(self.reference.parameters()),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore. Without a saved AdamW it starts afresh; tunable values stay the config's."""
        self.minibatch.load_state_dict(state["minibatch"])
        self._skipped_in_a_row = state["skipped_in_a_row"]
        if state["adamw"] is not None:
            self.optimizer.load_state_dict(state["adamw"])
        self.reference = None
        if state["reference"] is not None:
            self.reference = self.network.frozen()
            nn.utils.vector_to_parameters(state["reference"].clone(), self.reference.parameters())


def _means(statistics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value; nothing of nothing."""
    names = statistics[0] if statistics else ()
    return {name: float(np.mean([one[name] for one in statistics])) for name in names}
