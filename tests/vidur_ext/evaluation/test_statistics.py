"""Intervals cover the truth about as often as they say, and pairing makes them narrow."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vidur_ext.evaluation import statistics
from vidur_ext.evaluation.metrics import COMPARED_METRICS, RequestLatencies
from vidur_ext.evaluation.statistics import Bootstrap, PairedDifference

RUNS, REQUESTS = 3, 300


def latencies(e2e: NDArray[np.float64]) -> RequestLatencies:
    flat = e2e.ravel()
    return RequestLatencies(flat, flat / 2, flat / 10, (flat < 11).astype(np.float64))


def autocorrelated(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return [RUNS, REQUESTS] moving averages over 10 values with unit variance."""
    noise = rng.normal(size=(RUNS, REQUESTS + 9))
    windows = np.lib.stride_tricks.sliding_window_view(noise, 10, axis=1)
    sums: NDArray[np.float64] = windows.sum(axis=2)
    return sums / np.sqrt(10)


def difference(ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int = 0, **keys: int):
    samples = keys.get("samples", 200)
    rng = np.random.default_rng(seed)
    pair = [latencies(ours), latencies(theirs)]
    return Bootstrap.of(pair, [REQUESTS] * RUNS, samples, rng).versus(0, 1)


def test_intervals_cover_the_true_difference_of_correlated_requests() -> None:
    rng = np.random.default_rng(11)
    covered, trials = np.zeros(2), 120
    for trial in range(trials):
        shared = 10 + 2 * autocorrelated(rng)
        found = difference(
            shared + autocorrelated(rng), shared + 0.5 + autocorrelated(rng), trial, samples=120
        )
        for i, metric in enumerate(("e2e_mean_s", "e2e_p90_s")):
            covered[i] += found[metric].interval.low <= -0.5 <= found[metric].interval.high
    # 95 % is promised; three standard errors of 120 trials are 6 points, small samples cost some.
    assert (covered / trials >= 0.87).all(), covered / trials


def test_no_difference_is_rarely_called_a_win_or_a_loss() -> None:
    rng = np.random.default_rng(12)
    called = 0
    for trial in range(100):
        shared = 10 + 2 * autocorrelated(rng)
        found = difference(
            shared + autocorrelated(rng), shared + autocorrelated(rng), trial, samples=120
        )
        called += found["e2e_mean_s"].win or found["e2e_mean_s"].loss
    assert called <= 13


def test_a_clear_difference_is_called_in_the_right_direction() -> None:
    base = 10 + autocorrelated(np.random.default_rng(13))
    better, worse = difference(base * 0.9, base), difference(base, base * 0.9)
    for metric in COMPARED_METRICS:
        assert (better[metric].win, better[metric].loss) == (True, False), metric
        assert (worse[metric].win, worse[metric].loss) == (False, True), metric


def test_a_constant_factor_is_found_exactly() -> None:
    """Only true of paired resamples: unpaired ones would vary."""
    base = 10 + autocorrelated(np.random.default_rng(14))
    found = difference(base * 0.8, base)["ttft_p99_s"]
    assert found.ratio == pytest.approx(0.8)
    assert found.ratio_interval.low == pytest.approx(0.8)
    assert found.ratio_interval.high == pytest.approx(0.8)


def test_equal_schedulers_differ_by_exactly_nothing() -> None:
    base = 10 + autocorrelated(np.random.default_rng(15))
    for found in difference(base, base.copy()).values():
        assert (found.difference, found.interval.low, found.interval.high) == (0.0, 0.0, 0.0)
        assert not found.win
        assert not found.loss


def test_the_same_generator_gives_the_same_intervals() -> None:
    base = 10 + autocorrelated(np.random.default_rng(16))
    other = base + autocorrelated(np.random.default_rng(17))
    assert difference(base, other, 5) == difference(base, other, 5)
    assert difference(base, other, 5) != difference(base, other, 6)


def test_large_comparisons_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_ENTRIES_AT_ONCE", RUNS * REQUESTS * 7)
    base = 10 + autocorrelated(np.random.default_rng(18))
    bootstrap = Bootstrap.of([latencies(base)], [REQUESTS] * RUNS, 40, np.random.default_rng(0))
    assert bootstrap.draws.shape == (1, len(COMPARED_METRICS), 40)
    interval = bootstrap.intervals(0)["e2e_mean_s"]
    assert interval is not None
    assert interval.low < base.mean() < interval.high


def test_what_is_not_measured_has_no_interval_and_no_difference() -> None:
    base = 10 + autocorrelated(np.random.default_rng(19)).ravel()
    untimed = RequestLatencies(base, base, np.full_like(base, np.nan), np.zeros_like(base))
    bootstrap = Bootstrap.of([untimed, untimed], [REQUESTS] * RUNS, 20, np.random.default_rng(0))
    assert bootstrap.intervals(0)["tbt_mean_s"] is None
    assert bootstrap.versus(0, 1)["tbt_p99_s"] is None
    slo = bootstrap.versus(0, 1)["slo_attainment"]
    assert isinstance(slo, PairedDifference)
    assert slo.ratio is None
    assert slo.ratio_interval is None


@pytest.mark.parametrize(("factor", "material"), [(0.989, True), (0.991, False), (1.011, True)])
def test_a_change_is_material_from_one_percent_on(factor: float, material: bool) -> None:
    theirs = np.random.default_rng(5).uniform(1, 2, (RUNS, REQUESTS))
    found = difference(factor * theirs, theirs)["e2e_mean_s"]
    assert (found.win, found.loss) == (factor < 1, factor > 1), "certain, as every request changed"
    assert found.material is material


def test_of_shares_one_point_is_material_whatever_the_share() -> None:
    theirs = np.full((RUNS, REQUESTS), 10.0)
    for late, material in ((8, False), (10, True)):  # of 900 requests; the objective is 11
        ours = theirs.copy()
        ours.flat[:late] = 12.0
        found = difference(ours, theirs)["slo_attainment"]
        assert found.difference == pytest.approx(-late / 900)
        assert found.material is material
