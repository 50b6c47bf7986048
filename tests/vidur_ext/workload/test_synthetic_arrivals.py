"""Synthetic arrivals keep their rate and burstiness, and every seed is a world of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.workload.synthetic import SyntheticStream

STREAM = SyntheticStream(
    seed=11,
    purpose=Purpose.WORKLOAD,
    qps=20.0,
    arrival="gamma",
    burstiness_cv=2.0,
    code_fraction=0.3,
    max_tokens=8192,
)


def gaps(stream: SyntheticStream, count: int = 60_000) -> Any:
    return np.diff(stream.window(0, count).arrived_at, prepend=0.0)


@pytest.mark.parametrize("cv", [0.25, 1.0, 2.0, 4.0])
def test_gamma_gaps_have_the_asked_rate_and_burstiness(cv: float) -> None:
    drawn = gaps(replace(STREAM, burstiness_cv=cv))
    assert 1.0 / drawn.mean() == pytest.approx(20.0, rel=0.06)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.06)


def test_poisson_gaps_are_exponential_whatever_the_burstiness() -> None:
    stream = replace(STREAM, arrival="poisson")
    drawn = gaps(stream)
    assert 1.0 / drawn.mean() == pytest.approx(20.0, rel=0.02)
    assert drawn.std() / drawn.mean() == pytest.approx(1.0, rel=0.02)
    assert np.median(drawn) * 20.0 == pytest.approx(np.log(2.0), rel=0.02)
    other = replace(stream, burstiness_cv=7.0)
    assert other.window(0, 2000).digest() == stream.window(0, 2000).digest()


def test_another_rate_brings_the_same_requests_faster() -> None:
    slow, fast = STREAM.window(0, 3000), replace(STREAM, qps=80.0).window(0, 3000)
    assert fast.prefill_tokens.tolist() == slow.prefill_tokens.tolist()
    np.testing.assert_allclose(fast.arrived_at * 4.0, slow.arrived_at, atol=1e-5)


def test_another_arrival_process_brings_the_same_lengths() -> None:
    gamma, poisson = (
        replace(STREAM, arrival=name).window(0, 3000) for name in ("gamma", "poisson")
    )
    assert gamma.decode_tokens.tolist() == poisson.decode_tokens.tolist()
    assert gamma.arrived_at.tolist() != poisson.arrived_at.tolist()


def test_the_first_request_comes_after_a_gap() -> None:
    assert STREAM.window(0, 1).arrived_at[0] > 0.0


def test_a_profile_scales_the_rate_part_by_part_and_begins_again() -> None:
    plain = gaps(STREAM, 2100)
    shifted = gaps(replace(STREAM, rate_profile=(0.5, 2.0), rate_period=10), 2100)
    factors = np.tile([0.5] * 5 + [2.0] * 5, 210)
    np.testing.assert_allclose(shifted * factors, plain, atol=1e-8)


def test_parts_of_a_profile_share_its_period_as_equally_as_whole_requests_can() -> None:
    plain = gaps(STREAM, 2048)
    shifted = gaps(replace(STREAM, rate_profile=(0.6, 1.1, 0.8), rate_period=2048), 2048)
    # 2048 / 3 = 682.67 and 2 * 2048 / 3 = 1365.33: the parts begin at 0, 683 and 1366.
    factors = np.array([0.6] * 683 + [1.1] * 683 + [0.8] * 682)
    np.testing.assert_allclose(shifted * factors, plain, atol=1e-8)


def test_a_profile_changes_no_length() -> None:
    shifted = replace(STREAM, rate_profile=(0.6, 1.1), rate_period=100).window(0, 3000)
    plain = STREAM.window(0, 3000)
    assert shifted.prefill_tokens.tolist() == plain.prefill_tokens.tolist()
    assert shifted.decode_tokens.tolist() == plain.decode_tokens.tolist()


def test_equal_addresses_give_equal_streams() -> None:
    assert STREAM.window(5, 2000).digest() == replace(STREAM).window(5, 2000).digest()


@pytest.mark.parametrize(
    "change", [{"seed": 12}, {"purpose": Purpose.EVALUATION_WORKLOAD}, {"variant": 1}]
)
def test_other_addresses_share_nothing(change: dict[str, Any]) -> None:
    mine, other = gaps(STREAM, 2000), gaps(replace(STREAM, **change), 2000)
    assert len(np.intersect1d(mine[mine > 1e-3], other[other > 1e-3])) <= 2


def test_blocks_do_not_repeat_each_other() -> None:
    table = STREAM.window(0, 2048)
    assert table.prefill_tokens[:1024].tolist() != table.prefill_tokens[1024:].tolist()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"qps": 0.0}, "qps=0.0: expected a number of requests per second above 0"),
        ({"qps": float("inf")}, "qps=inf"),
        ({"arrival": "weibull"}, "arrival='weibull': expected poisson or gamma"),
        ({"burstiness_cv": 0.0}, "burstiness_cv=0.0"),
        ({"burstiness_cv": 21.0}, "burstiness_cv=21.0"),
        ({"code_fraction": 1.5}, "code_fraction=1.5: expected a share from 0 to 1"),
        ({"max_tokens": 1}, "max_tokens=1: expected an integer >= 2"),
        ({"output_tail_index": 1.0}, "output_tail_index=1.0: expected a number above 1"),
        ({"rate_profile": (1.0, 0.0)}, r"rate_profile=\(1.0, 0.0\): expected numbers above 0"),
        ({"rate_profile": ()}, r"rate_profile=\(\)"),
        ({"rate_profile": (1.0, 2.0), "rate_period": 1}, "at most rate_period=1 of them"),
        ({"seed": -1}, "seed=-1"),
        ({"variant": -1}, "variant=-1"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        replace(STREAM, **change)
