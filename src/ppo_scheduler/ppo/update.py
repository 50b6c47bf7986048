"""One PPO update: some epochs of minibatches over a rollout.

A minibatch has rows of every shard. Each shard's part of the gradient is computed alone, and the
parts are added in the order of the shards: see ``parallel/shards.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppo_scheduler.config.learner_sections import OptimizationSection, PPOSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.policy.parts import SplitNetwork
from ppo_scheduler.ppo.adamw import AdamW
from ppo_scheduler.ppo.batches import Batch, SampledBatch, Statistics
from ppo_scheduler.ppo.objective import (
    balance_loss,
    entropy,
    kl_divergence,
    log_probabilities,
)
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
class Coefficients:
    """Scheduled weights that hold during one update."""

    learning_rate: float
    entropy: float
    reference_kl: float


_LOGGED = ("Training/Entropy", "Training/ReferenceKL", "Training/ActionBalance")
"""What every loss tells beside that of its batch; the last is one of a shard, not of a decision."""


@dataclass(frozen=True)
class Minibatch:
    """This process's rows of a minibatch, one shard's after the other's.

    reference [n, R]: the reference policy's log-probabilities, if there is one. sizes: rows of each
    shard. weight: of a row in the loss of the step.
    """

    batch: Batch
    reference: Tensor | None
    sizes: list[int]
    weight: float

    @property
    def shard_of(self) -> Tensor:
        """The number [n], among this process's, of the shard that each row belongs to."""
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))


@dataclass(frozen=True)
class GradientStep:
    """One step of the optimizer, or one that was skipped because it was not finite."""

    epoch: int
    finite: bool
    statistics: dict[str, float]


class PPOUpdater:
    """Owns the optimizer; its ``update`` reads like the algorithm of the paper."""

    def __init__(
        self,
        network: ActorCritic,
        section: PPOSection,
        optimization: OptimizationSection,
        shards: Shards,
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
        self._shards = shards
        self._split = SplitNetwork(network)
        self._accumulation = optimization.accumulation_steps
        self._skipped_in_a_row = 0

    def keep_reference(self) -> None:
        """Make the policy of this moment the one that the KL term refers to."""
        self.reference = self.network.frozen()

    def fit_critic(
        self, batches: Sequence[SampledBatch], lengths: NDArray[np.int64]
    ) -> dict[str, float]:
        """Solve the value head alone by ridge regression on the returns; the policy stays.

        Args:
            batches: one of each of this process's shards.
            lengths: decisions of all shards [S].
        """
        with torch.no_grad():
            encoded = [self.network.encode(one.replicas, one.context) for one in batches]
            hidden = self._of_all([one.mean(dim=1) for one in encoded], lengths)
            target = self._of_all([batch.target for batch in batches], lengths)
            mean = hidden.mean(dim=0)
            centered = hidden - mean
            gram = centered.T @ centered
            gram += _RIDGE * len(target) * torch.eye(len(gram), dtype=torch.float64)
            weight = torch.linalg.solve(gram, centered.T @ (target - target.mean()))
            self.network.critic_head.weight.copy_(weight.unsqueeze(0))
            self.network.critic_head.bias.copy_(target.mean() - weight @ mean)
            error = centered @ weight + target.mean() - target
        return {"Training/ValueLoss": 0.5 * float(error.square().mean())}

    def _of_all(self, own: Sequence[Tensor], lengths: NDArray[np.int64]) -> Tensor:
        rows = self._shards.rows_together([part.numpy() for part in own], lengths)
        return torch.from_numpy(rows).double()

    def update(
        self,
        batches: Sequence[Batch],
        lengths: NDArray[np.int64],
        coefficients: Coefficients,
        rng: np.random.Generator,
    ) -> dict[str, float]:
        """Run the epochs; return the means of what was seen, under their logged names.

        Args:
            batches: one of each of this process's shards.
            lengths: decisions of all shards [S].
            rng: the same in all processes.

        Raises:
            UserError: too many gradient steps in a row were not finite.
        """
        self.optimizer.learning_rate = coefficients.learning_rate
        steps: list[GradientStep] = []
        stopped = False
        for step in self._gradient_steps(batches, lengths, coefficients, rng):
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
        self,
        batches: Sequence[Batch],
        lengths: NDArray[np.int64],
        coefficients: Coefficients,
        rng: np.random.Generator,
    ) -> Iterator[GradientStep]:
        """Make the steps of all epochs, each when it is asked for."""
        own = Batch.joined(batches)
        # The same in all epochs, so it is computed once.
        reference = self._reference_log_probs(own)
        firsts = np.cumsum([0, *(len(batch) for batch in batches)])
        sizes = rows_of_minibatches(lengths, self.minibatch.size)
        count = sizes.shape[1]
        for epoch in range(self._section.epochs):
            orders = [rng.permutation(length) for length in lengths]
            parts = [
                np.split(first + orders[shard], np.cumsum(sizes[shard])[:-1])
                for first, shard in zip(firsts, self._shards.own, strict=False)
            ]
            for begin in range(0, count, self._accumulation):
                numbers = range(begin, min(begin + self._accumulation, count))
                minibatches = []
                for number in numbers:
                    rows = torch.from_numpy(np.concatenate([part[number] for part in parts]))
                    minibatches.append(
                        Minibatch(
                            own.rows(rows),
                            None if reference is None else reference[rows],
                            [len(part[number]) for part in parts],
                            1.0 / (int(sizes[:, number].sum()) * len(numbers)),
                        )
                    )
                statistics, finite = self._step(minibatches, coefficients)
                yield GradientStep(epoch, finite, statistics)

    def _step(
        self, minibatches: Sequence[Minibatch], coefficients: Coefficients
    ) -> tuple[dict[str, float], bool]:
        """Make one optimizer step from one or more accumulated minibatches, if it is finite."""
        named = dict(self.network.named_parameters())
        names = (*minibatches[0].batch.logged, *_LOGGED)
        parts = [self._gradients(one, names, coefficients) for one in minibatches]
        total = torch.from_numpy(self._shards.total(np.sum(parts, axis=0)))
        sizes = [parameter.numel() for parameter in named.values()]
        *gradients, values = total.split([*sizes, len(names)])
        for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
            reached = minibatches[0].batch.needs_values or not name.startswith("critic_head")
            parameter.grad = gradient.view_as(parameter) if reached else None
        norm = float(nn.utils.clip_grad_norm_(named.values(), self._section.max_grad_norm))
        statistics = dict(zip(names, values.tolist(), strict=True))
        finite = bool(np.isfinite(norm) and np.isfinite(list(statistics.values())).all())
        if finite:
            self._skipped_in_a_row = 0
            self.optimizer.step()
        else:
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row >= self._section.max_nonfinite_steps:
                raise UserError(
                    f"{self._skipped_in_a_row} gradient steps in a row were not finite; the "
                    "weights are still those of the last finite step. Bring what is far from its "
                    "default nearer to it (ppo_config.learning_rate, max_grad_norm, adam_eps, the "
                    "coefficients of entropy, value, balance and KL, advantage_clip, temperatures),"
                    " or resume from an earlier checkpoint"
                )
        return {**statistics, "Training/GradientNorm": norm}, finite

    def _gradients(
        self, minibatch: Minibatch, names: tuple[str, ...], coefficients: Coefficients
    ) -> NDArray[np.float32]:
        """Return what each of this process's shards adds to a step [S / W, ...].

        That is the gradient by all parameters one after the other, and the values of ``names``.
        """
        batch, sizes = minibatch.batch, minibatch.sizes
        # The loss is taken of all shards at once: in it decisions do not touch each other.
        parts = self._split.parts(batch.replicas.split(sizes), batch.context.split(sizes))
        logits, value = (output.requires_grad_() for output in parts.outputs())
        loss, statistics = self._loss(logits, value, minibatch, coefficients)
        loss.backward()
        assert logits.grad is not None, "every loss depends on the logits"
        gradients = torch.stack(parts.gradients(logits.grad, value.grad))
        values = torch.stack([statistics[name] for name in names], dim=1)
        return torch.cat([gradients, values], dim=1).numpy()

    def _loss(
        self, logits: Tensor, value: Tensor, minibatch: Minibatch, weights: Coefficients
    ) -> tuple[Tensor, Statistics]:
        """Return the loss of the step, and each shard's part of its statistics.

        Args:
            logits: [n, R]; value: [n].
        """
        section, batch = self._section, minibatch.batch
        log_probs = log_probabilities(logits, batch.temperature)
        surrogate, statistics = batch.surrogate(log_probs, value, section)
        entropies = entropy(log_probs)
        reference_kl = _reference_kl(logits, minibatch.reference)
        of_decision = surrogate - weights.entropy * entropies + weights.reference_kl * reference_kl
        shares = minibatch.weight * torch.tensor(minibatch.sizes)
        rows = torch.tensor(minibatch.sizes).clamp_min(1)
        mean = _sums(log_probs.exp(), minibatch) / rows[:, None]
        balance = balance_loss(mean)
        loss = minibatch.weight * of_decision.sum()
        loss = loss + section.action_balance_coef * (shares * balance).sum()
        statistics |= {"Training/Entropy": entropies, "Training/ReferenceKL": reference_kl}
        of_decisions = torch.stack(list(statistics.values()), dim=1).detach()
        parts = minibatch.weight * _sums(of_decisions, minibatch)
        return loss, {
            **dict(zip(statistics, parts.unbind(dim=1), strict=True)),
            "Training/ActionBalance": shares * balance.detach(),
        }

    @torch.no_grad()
    def _reference_log_probs(self, batch: Batch) -> Tensor | None:
        """Return the reference policy's log-probabilities [N, R] at temperature 1, if any."""
        if self.reference is None:
            return None
        logits, _ = self.reference(batch.replicas, batch.context)
        return _at_temperature_one(logits)

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


def rows_of_minibatches(lengths: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Return how many rows each shard gives to each minibatch [S, M].

    The rows of every shard are spread evenly over an epoch, which is cut into minibatches as even
    as whole numbers can be, of ``wanted`` rows at most.

    Args:
        lengths: rows of each shard [S].
    """
    total = int(lengths.sum())
    count = math.ceil(total / wanted)
    places = np.concatenate([(np.arange(length) + 0.5) / length for length in lengths])
    shards = np.repeat(np.arange(len(lengths)), lengths)[np.argsort(places, kind="stable")]
    rows = np.zeros((len(lengths), count), np.int64)
    np.add.at(rows, (shards, np.arange(total) * count // max(total, 1)), 1)
    return rows


def _means(statistics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value; nothing of nothing."""
    names = statistics[0] if statistics else ()
    return {name: float(np.mean([one[name] for one in statistics])) for name in names}


def _at_temperature_one(logits: Tensor) -> Tensor:
    return log_probabilities(logits, torch.ones(()).expand(len(logits)))


def _reference_kl(logits: Tensor, reference: Tensor | None) -> Tensor:
    if reference is None:
        return torch.zeros(len(logits))
    return kl_divergence(_at_temperature_one(logits), reference)


def _sums(rows: Tensor, minibatch: Minibatch) -> Tensor:
    """Return the sums [S / W, K] over the rows [n, K] of each shard, one row after the other."""
    sums = torch.zeros(len(minibatch.sizes), rows.shape[1])
    return sums.index_add(0, minibatch.shard_of, rows)
