"""RunningMeanStd knows the mean and variance of everything it has seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppo_scheduler.policy.normalizer import RunningMeanStd
from ppo_scheduler.state import StateDict


def rows(seed: int, count: int, offset: float = 0.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(offset, 3.0, (count, 2))


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0.0, -5.0, 1e6]),
)
def test_statistics_are_those_of_all_rows_however_they_are_batched(
    sizes: list[int], seed: int, offset: float
) -> None:
    data = rows(seed, sum(sizes), offset)
    statistics = RunningMeanStd((2,))
    for batch in np.split(data, np.cumsum(sizes)[:-1]):
        statistics.update(batch)
    assert statistics.count == len(data)
    np.testing.assert_allclose(statistics.mean, data.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(statistics.variance, data.var(axis=0), rtol=1e-6, atol=1e-12)


def test_normalized_data_has_mean_0_and_std_1() -> None:
    data = rows(1, 500, offset=100.0)
    statistics = RunningMeanStd((2,))
    statistics.update(data)
    normalized = statistics.normalize(data, clip=10.0)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(normalized.std(axis=0), 1.0, atol=1e-6)


def test_leading_axes_are_free() -> None:
    data = rows(2, 12)
    statistics = RunningMeanStd((2,))
    statistics.update(data)
    flat = statistics.normalize(data, clip=10.0)
    np.testing.assert_array_equal(
        statistics.normalize(data.reshape(3, 4, 2), clip=10.0), flat.reshape(3, 4, 2)
    )


def test_normalizing_a_single_row_still_shows_the_state() -> None:
    """Statistics of the batch at hand would turn every single observation into zeros."""
    statistics = RunningMeanStd((2,))
    statistics.update(rows(3, 100))
    low, high = (statistics.normalize(np.full((1, 2), x), clip=10.0) for x in (-3.0, 3.0))
    assert (high - low > 1.0).all()


def test_normalizing_leaves_the_statistics_alone() -> None:
    statistics = RunningMeanStd((2,))
    statistics.update(rows(4, 10))
    before = statistics.normalize(np.ones(2), clip=10.0)
    statistics.normalize(rows(5, 100, offset=50.0), clip=10.0)
    np.testing.assert_array_equal(statistics.normalize(np.ones(2), clip=10.0), before)


def test_clip_bounds_what_is_normalized() -> None:
    statistics = RunningMeanStd((2,))
    statistics.update(rows(6, 100))
    far = np.array([-1e9, 1e9])
    assert statistics.normalize(far, clip=10.0).tolist() == [-10.0, 10.0]
    assert statistics.normalize(far, clip=2.0).tolist() == [-2.0, 2.0]


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1.0 / 3.0])
def test_what_never_varied_is_shifted_but_not_blown_up(value: float) -> None:
    statistics = RunningMeanStd((1,))
    for _ in range(7):
        statistics.update(np.full((3, 1), value))
    assert statistics.std.tolist() == [1.0]
    assert statistics.normalize(np.array([value + 0.5]), clip=10.0) == pytest.approx(0.5)


def test_small_spread_counts_when_the_feature_itself_is_small() -> None:
    data = rows(7, 200) * 1e-12
    statistics = RunningMeanStd((2,))
    statistics.update(data)
    np.testing.assert_allclose(statistics.normalize(data, 10.0).std(axis=0), 1.0, atol=1e-6)


def test_normalizing_without_statistics_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="before the first update"):
        RunningMeanStd((2,)).normalize(np.zeros(2), clip=10.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_enter(bad: float) -> None:
    with pytest.raises(AssertionError, match="not finite"):
        RunningMeanStd((2,)).update(np.array([[0.0, bad]]))


@pytest.mark.parametrize("shape", [(0, 2), (3, 1), (2,)])
def test_a_batch_of_another_shape_is_a_bug(shape: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        RunningMeanStd((2,)).update(np.zeros(shape))


@given(seed=st.integers(0, 1000), before=st.integers(0, 5))
def test_statistics_continue_from_a_file_bit_by_bit(
    seed: int, before: int, through_file: Callable[[StateDict], StateDict]
) -> None:
    original, restored = RunningMeanStd((2,)), RunningMeanStd((2,))
    for step in range(before):
        original.update(rows(seed + step, 3, offset=0.1))
    restored.load_state_dict(through_file(original.state_dict()))
    for statistics in (original, restored):
        statistics.update(rows(seed + 99, 4))
    probe = rows(seed + 100, 5)
    np.testing.assert_array_equal(original.normalize(probe, 10.0), restored.normalize(probe, 10.0))
    np.testing.assert_array_equal(original.variance, restored.variance)


def test_a_saved_state_does_not_move_with_its_object() -> None:
    statistics = RunningMeanStd((2,))
    statistics.update(rows(8, 5))
    state = statistics.state_dict()
    mean = state["mean"].clone()
    statistics.update(rows(9, 5))
    assert (state["mean"] == mean).all()
