"""Generalised advantage estimation."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.ppo.objective import advantages_and_returns, explained_variance


def naive(rewards, values, dones, next_value, gamma, lam):
    """The definition: a sum of discounted temporal differences that stops at episode ends."""
    steps = len(rewards)
    following = np.append(values[1:], next_value)
    delta = rewards + gamma * following * ~dones - values
    advantages = np.zeros(steps)
    for first in range(steps):
        weight = 1.0
        for step in range(first, steps):
            advantages[first] += weight * delta[step]
            if dones[step]:
                break
            weight *= gamma * lam
    return advantages


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 30),
    gamma=st.floats(0.1, 1.0),
    lam=st.floats(0.0, 1.0),
)
def test_equals_the_definition(seed, steps, gamma, lam):
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, steps, 1))
    dones = rng.random((steps, 1)) < 0.2
    next_value = rng.normal(size=1)
    advantages, returns = advantages_and_returns(rewards, values, dones, next_value, gamma, lam)
    expected = naive(rewards[:, 0], values[:, 0], dones[:, 0], next_value[0], gamma, lam)
    np.testing.assert_allclose(advantages[:, 0], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(returns, advantages + values)


def test_nothing_flows_across_an_episode_end():
    rewards = np.array([[1.0], [100.0]])
    dones = np.array([[True], [False]])
    advantages, _ = advantages_and_returns(
        rewards, np.zeros((2, 1)), dones, np.array([50.0]), gamma=0.9, gae_lambda=0.9
    )
    assert advantages[0, 0] == 1.0


def test_last_step_bootstraps_from_the_true_next_state():
    advantages, _ = advantages_and_returns(
        np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1), bool), np.array([7.0]), 0.5, 0.9
    )
    assert advantages[0, 0] == 3.5


def test_environments_do_not_mix():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 20, 4))
    dones = rng.random((20, 4)) < 0.2
    next_value = rng.normal(size=4)
    together, _ = advantages_and_returns(rewards, values, dones, next_value, 0.9, 0.8)
    for env in range(4):
        one = slice(env, env + 1)
        alone, _ = advantages_and_returns(
            rewards[:, one], values[:, one], dones[:, one], next_value[one], 0.9, 0.8
        )
        np.testing.assert_array_equal(together[:, one], alone)


def test_explained_variance_of_perfect_and_constant_predictions():
    target = np.arange(10.0)
    assert explained_variance(target, target) == 1.0
    assert explained_variance(np.full(10, 4.5), target) == 0.0
    assert explained_variance(target, np.ones(10)) == 0.0
