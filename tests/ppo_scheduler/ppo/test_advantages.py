"""Advantages: generalised advantage estimation, and those of all choices from their costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.ppo.objective import (
    advantages_and_returns,
    advantages_of_choices,
    discount,
    explained_variance,
    policy_loss_of_choices,
    within_deviations,
)


def naive(rewards, values, dones, next_value, discounts, lam):
    """The definition: a sum of discounted temporal differences that stops at episode ends."""
    steps = len(rewards)
    following = np.append(values[1:], next_value)
    delta = rewards + discounts * following * ~dones - values
    advantages = np.zeros(steps)
    for first in range(steps):
        weight = 1.0
        for step in range(first, steps):
            advantages[first] += weight * delta[step]
            if dones[step]:
                break
            weight *= discounts[step] * lam
    return advantages


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 30),
    lam=st.floats(0.0, 1.0),
)
def test_equals_the_definition(seed, steps, lam):
    rng = np.random.default_rng(seed)
    discounts = rng.uniform(0.1, 1.0, (steps, 1))
    rewards, values = rng.normal(size=(2, steps, 1))
    dones = rng.random((steps, 1)) < 0.2
    next_value = rng.normal(size=1)
    advantages, returns = advantages_and_returns(rewards, values, dones, next_value, discounts, lam)
    expected = naive(rewards[:, 0], values[:, 0], dones[:, 0], next_value[0], discounts[:, 0], lam)
    np.testing.assert_allclose(advantages[:, 0], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(returns, advantages + values)


def test_nothing_flows_across_an_episode_end():
    rewards = np.array([[1.0], [100.0]])
    dones = np.array([[True], [False]])
    advantages, _ = advantages_and_returns(
        rewards, np.zeros((2, 1)), dones, np.array([50.0]), np.full((2, 1), 0.9), gae_lambda=0.9
    )
    assert advantages[0, 0] == 1.0


def test_last_step_bootstraps_from_the_true_next_state():
    nothing, half = np.zeros((1, 1)), np.full((1, 1), 0.5)
    advantages, _ = advantages_and_returns(
        nothing, nothing, np.zeros((1, 1), bool), np.array([7.0]), half, 0.9
    )
    assert advantages[0, 0] == 3.5


def test_the_future_counts_by_the_clock_and_not_per_decision():
    """Ten decisions in a second count as much less as one decision after a second."""
    many, one = discount(np.full(10, 0.1), 4.0), discount(np.array([1.0]), 4.0)
    assert np.prod(many) == pytest.approx(one[0])
    assert discount(np.array([4.0]), 4.0)[0] == pytest.approx(np.exp(-1.0))


def test_advantages_of_choices_are_what_they_save_against_the_policys_mean():
    costs = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    log_probs = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    advantages = advantages_of_choices(costs, log_probs)
    torch.testing.assert_close(advantages, torch.tensor([[0.5, -1.5], [0.0, 0.0]]))


def test_only_differences_of_costs_count():
    costs = torch.tensor([[1.0, 3.0, 4.0]], dtype=torch.float64)
    log_probs = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    moved = advantages_of_choices(costs + 1e6, log_probs)
    torch.testing.assert_close(moved, advantages_of_choices(costs, log_probs), atol=1e-9, rtol=0.0)


def test_advantages_of_choices_have_no_mean_under_the_policy():
    costs, logits = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    log_probs = logits.log_softmax(dim=-1)
    mean = (log_probs.exp() * advantages_of_choices(costs, log_probs)).sum(dim=-1)
    torch.testing.assert_close(mean, torch.zeros(50), atol=1e-5, rtol=0.0)


def test_the_loss_of_choices_is_the_mean_of_the_clipped_objective_over_the_actions():
    """By hand: probabilities 0.5, 0.5 move to 0.8, 0.2, ratios 1.6 and 0.4, clipped at 0.2."""
    behavior = torch.tensor([[0.5, 0.5]]).log()
    log_probs = torch.tensor([[0.8, 0.2]]).log()
    advantage = torch.tensor([[1.0, -1.0]])
    loss = policy_loss_of_choices(log_probs, behavior, advantage, 0.2)
    # min(1.6, 1.2) * 1 and min(0.4 * -1, 0.8 * -1), each with probability one half.
    assert float(loss) == pytest.approx(-(0.5 * 1.2 + 0.5 * -0.8))


def test_advantages_are_expressed_in_standard_deviations_and_clipped():
    advantage = torch.tensor([[-100.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    within = within_deviations(advantage, 4.0, 2.0)
    assert float(within[0, 0]) == -2.0
    assert float(within[0, 1]) == pytest.approx(0.25)


def test_environments_do_not_mix():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 20, 4))
    dones = rng.random((20, 4)) < 0.2
    next_value, discounts = rng.normal(size=4), np.full((20, 4), 0.9)
    together, _ = advantages_and_returns(rewards, values, dones, next_value, discounts, 0.8)
    for env in range(4):
        one = slice(env, env + 1)
        alone, _ = advantages_and_returns(
            rewards[:, one], values[:, one], dones[:, one], next_value[one], discounts[:, one], 0.8
        )
        np.testing.assert_array_equal(together[:, one], alone)


def test_explained_variance_of_perfect_and_constant_predictions():
    target = np.arange(10.0)
    assert explained_variance(target, target) == 1.0
    assert explained_variance(np.full(10, 4.5), target) == 0.0
    assert explained_variance(target, np.ones(10)) == 0.0
