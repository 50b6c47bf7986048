"""Laws of the resamples: what is drawn, and that statistics on counts are statistics on data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidur_ext.evaluation.statistics import (
    block_length,
    resample_counts,
    weighted_means,
    weighted_quantiles,
)

SEEDS = st.integers(0, 2**32)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), seed=SEEDS)
def test_a_resample_holds_whole_runs_as_often_as_there_are_runs(
    sizes: list[int], seed: int
) -> None:
    counts = resample_counts(sizes, 8, np.random.default_rng(seed))
    assert counts.shape == (8, sum(sizes))
    assert (counts >= 0).all()
    runs = np.split(counts, np.cumsum(sizes)[:-1], axis=1)
    copies = np.array([run.sum(axis=1) / size for run, size in zip(runs, sizes, strict=True)])
    np.testing.assert_array_equal(copies, np.round(copies))
    np.testing.assert_array_equal(copies.sum(axis=0), len(sizes))


@given(
    values=st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    seed=SEEDS,
    quantile=st.floats(0, 1),
)
def test_counted_statistics_equal_those_of_the_resample_itself(
    values: list[float], seed: int, quantile: float
) -> None:
    data = np.array(values)
    counts = np.random.default_rng(seed).integers(0, 4, (6, len(data))).astype(np.int32)
    counts[:5, 0] += 1
    counts[5] = 0
    [means] = weighted_means(data[:, None], counts.astype(np.float64))
    quantiles = weighted_quantiles(data, counts, [quantile])[0]
    for row in range(5):
        resample = np.repeat(data, counts[row])
        assert means[row] == pytest.approx(resample.mean(), abs=1e-9)
        assert quantiles[row] == pytest.approx(np.quantile(resample, quantile), abs=1e-9)
    assert np.isnan(means[5])
    assert np.isnan(quantiles[5])


def test_every_request_is_equally_likely() -> None:
    counts = resample_counts([50, 30], 20_000, np.random.default_rng(3))
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.08)


def test_neighbors_are_drawn_together() -> None:
    counts = resample_counts([400], 4000, np.random.default_rng(4)).astype(float)
    near = np.corrcoef(counts[:, 100], counts[:, 101])[0, 1]
    far = np.corrcoef(counts[:, 100], counts[:, 300])[0, 1]
    assert near == pytest.approx(1 - 1 / block_length(400), abs=0.05)
    assert abs(far) < 0.1


def test_whole_runs_are_drawn_or_left_out() -> None:
    counts = resample_counts([10, 10], 4000, np.random.default_rng(5))
    left_out = (counts[:, :10].sum(axis=1) == 0).mean()
    assert left_out == pytest.approx(0.25, abs=0.03)


def test_no_values_have_no_quantile() -> None:
    empty = weighted_quantiles(np.empty(0), np.empty((3, 0), dtype=np.int32), [0.5, 0.9])
    assert empty.shape == (2, 3)
    assert np.isnan(empty).all()
