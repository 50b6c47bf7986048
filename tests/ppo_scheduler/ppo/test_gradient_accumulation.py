"""Minibatches are even and have rows of all shards; accumulated ones make the step that one of
their total size would make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import (
    ArchitectureSection,
    OptimizationSection,
    PPOSection,
)
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.ppo.batches import SampledBatch
from ppo_scheduler.ppo.update import Coefficients, PPOUpdater, rows_of_minibatches

DECISIONS = 64


def batch() -> SampledBatch:
    rng = torch.Generator().manual_seed(0)
    return SampledBatch(
        replicas=torch.randn(DECISIONS, 3, 2, generator=rng),
        context=torch.randn(DECISIONS, 1, generator=rng),
        action=torch.randint(0, 3, (DECISIONS,), generator=rng),
        log_prob=torch.full((DECISIONS,), -1.1),
        value=torch.zeros(DECISIONS),
        temperature=torch.ones(DECISIONS),
        advantage=torch.randn(DECISIONS, generator=rng),
        target=torch.randn(DECISIONS, generator=rng),
    )


def weights_after_one_epoch(minibatch_size: int, accumulation_steps: int) -> torch.Tensor:
    network = ActorCritic(2, 1, ArchitectureSection(hidden_size=8, attention_heads=2))
    network.initialize(torch.Generator().manual_seed(1), True)
    section = PPOSection(minibatch_size=minibatch_size, epochs=1, target_kl=None)
    optimization = OptimizationSection(accumulation_steps=accumulation_steps)
    coefficients = Coefficients(learning_rate=1e-2, entropy=0.01, reference_kl=0.0)
    updater = PPOUpdater(network, section, optimization, Shards(1))
    updater.update([batch()], np.array([DECISIONS]), coefficients, np.random.default_rng(2))
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


@pytest.mark.shows("advanced_optimization.accumulation_steps")
def test_accumulation_steps_averages_minibatches_into_one_step() -> None:
    whole = weights_after_one_epoch(64, 1)
    torch.testing.assert_close(weights_after_one_epoch(16, 4), whole, rtol=1e-3, atol=2e-5)
    torch.testing.assert_close(weights_after_one_epoch(32, 2), whole, rtol=1e-3, atol=2e-5)
    assert (weights_after_one_epoch(16, 1) - whole).abs().max() > 1e-3


def test_minibatches_by_hand() -> None:
    """Of shards of 2 and 4 rows the one gives every third row; 3 fit into a minibatch."""
    assert rows_of_minibatches(np.array([2, 4]), 3).tolist() == [[1, 1], [2, 2]]
    assert rows_of_minibatches(np.array([1, 1, 1]), 2).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert rows_of_minibatches(np.array([0, 0]), 2).tolist() == [[], []]


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=16).filter(any),
    wanted=st.integers(1, 50),
)
def test_minibatches_are_even_and_so_is_every_shards_part_of_them(sizes, wanted) -> None:
    rows = rows_of_minibatches(np.array(sizes), wanted)
    assert rows.sum(axis=1).tolist() == sizes
    totals = rows.sum(axis=0)
    assert 1 <= totals.min() <= totals.max() <= wanted
    assert totals.max() - totals.min() <= 1
    for size, given_ in zip(sizes, rows, strict=True):
        share = size / sum(sizes)
        assert np.abs(np.cumsum(given_) - share * np.cumsum(totals)).max() <= len(sizes)
