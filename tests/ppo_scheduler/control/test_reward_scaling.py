"""RewardScaler divides by the spread of the discounted return and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppo_scheduler.control.reward_scaling import RewardScaler
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.state import StateDict

NOT_DONE = np.array([False, False])
USUAL = np.full(2, 0.99)


def rewards(seed: int, steps: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(-4.0, 2.0, (steps, 2))


def test_divisor_is_the_std_of_the_discounted_returns() -> None:
    gamma, stream = 0.9, rewards(0, 50)
    scaler = RewardScaler(Shards(2), clip=1e9)
    returns, seen = np.zeros(2), []
    for reward in stream:
        returns = gamma * returns + reward
        seen.append(returns)
        scaled = scaler.scale(reward, np.full(2, gamma), NOT_DONE)
        if len(seen) > 1:
            np.testing.assert_allclose(scaled, reward / np.std(seen), rtol=1e-10)
    assert scaler.std == pytest.approx(float(np.std(seen)))


@given(seed=st.integers(0, 1000), steps=st.integers(1, 30))
def test_rewards_are_never_shifted(seed: int, steps: int) -> None:
    """One positive divisor: signs, zeros and ratios of a step's rewards stay."""
    scaler = RewardScaler(Shards(3), clip=1e9)
    stream = np.random.default_rng(seed).normal(-4.0, 2.0, (steps, 3))
    stream[:, 2] = 0.0
    for reward in stream:
        scaled = scaler.scale(reward, np.full(3, 0.99), np.zeros(3, np.bool_))
        np.testing.assert_allclose(scaled * scaler.std, reward, rtol=1e-12)
        assert scaled[2] == 0.0


def test_the_unit_of_the_reward_does_not_matter() -> None:
    seconds, milliseconds = (RewardScaler(Shards(2), clip=10.0) for _ in range(2))
    for step, reward in enumerate(rewards(1, 40)):
        first = seconds.scale(reward, USUAL, NOT_DONE)
        second = milliseconds.scale(1000.0 * reward, USUAL, NOT_DONE)
        if step > 0:
            np.testing.assert_allclose(first, second, rtol=1e-9)


def test_an_episode_end_forgets_the_return_of_its_environment_only() -> None:
    """The reward that comes with done still belongs to the episode that ends."""
    gamma = 0.5
    scaler, returns = RewardScaler(Shards(2), clip=1e9), []
    current: NDArray[np.float64] = np.zeros(2)
    for reward, done in (([1.0, 1.0], [False, False]), ([1.0, 1.0], [True, False])):
        current = gamma * current + np.array(reward)
        returns.append(current)
        scaler.scale(np.array(reward), np.full(2, gamma), np.array(done))
        current = np.where(done, 0.0, current)
    current = gamma * current + 1.0
    returns.append(current)
    scaler.scale(np.ones(2), np.full(2, gamma), NOT_DONE)
    assert returns[-1].tolist() == [1.0, 1.75]
    assert scaler.std == pytest.approx(float(np.std(returns)))


def test_clip_bounds_the_scaled_reward() -> None:
    for clip in (10.0, 2.0):
        scaler = RewardScaler(Shards(2), clip)
        for reward in rewards(2, 220):
            scaler.scale(reward, USUAL, NOT_DONE)
        # They count in the divisor themselves: as one of 220 each is 15 standard deviations.
        assert scaler.scale(np.array([-1e9, 1e9]), USUAL, NOT_DONE).tolist() == [-clip, clip]


def test_the_discount_sets_how_far_the_return_reaches() -> None:
    stds = []
    for gamma in (0.5, 0.99):
        scaler = RewardScaler(Shards(2), clip=10.0)
        for reward in rewards(3, 300):
            scaler.scale(reward, np.full(2, gamma), NOT_DONE)
        stds.append(scaler.std)
    assert stds[1] > 2 * stds[0]


def test_the_first_reward_passes_unscaled() -> None:
    """One return has no spread; dividing by almost nothing would clip it to the limit."""
    scaler = RewardScaler(Shards(1), clip=10.0)
    assert scaler.std == 1.0
    assert scaler.scale(np.array([-3.0]), np.array([0.99]), np.array([False])).tolist() == [-3.0]


@given(seed=st.integers(0, 1000), before=st.integers(0, 10))
def test_scaling_continues_from_a_file_bit_by_bit(
    seed: int, before: int, through_file: Callable[[StateDict], StateDict]
) -> None:
    original, restored = (RewardScaler(Shards(2), clip=10.0) for _ in range(2))
    for step, reward in enumerate(rewards(seed, before)):
        original.scale(reward, USUAL, np.array([step == 2, False]))
    restored.load_state_dict(through_file(original.state_dict()))
    for reward in rewards(seed + 1, 10):
        np.testing.assert_array_equal(
            original.scale(reward, USUAL, NOT_DONE), restored.scale(reward, USUAL, NOT_DONE)
        )
    assert original.std == restored.std


def test_another_number_of_environments_keeps_the_scale_and_begins_new_returns() -> None:
    saved, other = RewardScaler(Shards(2), 10.0), RewardScaler(Shards(3), 10.0)
    for reward in rewards(0, 10):
        saved.scale(reward, USUAL, NOT_DONE)
    other.load_state_dict(saved.state_dict())
    assert other.std == saved.std != 1.0
    fresh = np.zeros(3)
    np.testing.assert_array_equal(
        other.scale(fresh, np.full(3, 0.99), np.zeros(3, dtype=bool)), fresh
    )
