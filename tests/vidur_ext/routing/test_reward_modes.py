"""What each reward mode pays for."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.config.learner_sections import RewardSection
from ppo_scheduler.control.curriculum import StageScales
from vidur_ext.routing.features import COMPONENTS
from vidur_ext.routing.reward import RewardFunction
from vidur_ext.routing.view import ClusterSnapshot, Completion, Quantity, SinceLastDecision


def snapshot(*outstanding: float) -> ClusterSnapshot:
    table = np.zeros((len(Quantity), len(outstanding)))
    table[Quantity.RUNNING] = outstanding
    table[Quantity.KV_BLOCKS_TOTAL] = 100.0
    return ClusterSnapshot(0.0, table)


def interval(*completions: Completion, request_seconds=3.0, unanswered=1.0) -> SinceLastDecision:
    return SinceLastDecision(0.5, request_seconds, unanswered, completions)


FAST = Completion(e2e_s=2.0, ttft_s=0.5, tbt_s=0.05, output_tokens=10)
SLOW = Completion(e2e_s=30.0, ttft_s=5.0, tbt_s=0.2, output_tokens=10)


def pay(mode: str, *steps: SinceLastDecision, **keys: float) -> list[float]:
    function = RewardFunction(RewardSection(mode=mode, **keys), 2)
    return [function(snapshot(2.0, 2.0), step)[0] for step in steps]


@pytest.mark.shows("reward_config.mode")
def test_latency_is_minus_the_time_integral_of_requests():
    assert pay("latency", interval(request_seconds=3.5)) == [-3.5]


def test_ttft_is_minus_the_time_integral_of_unanswered_requests():
    assert pay("ttft", interval(unanswered=1.25)) == [-1.25]


def test_slo_counts_completions_in_time_minus_late_ones():
    assert pay("slo", interval(FAST, FAST, SLOW)) == [1.0]


@pytest.mark.shows("reward_config.slo_ttft_s", "reward_config.slo_tbt_s")
@pytest.mark.parametrize(("key", "value"), [("slo_ttft_s", 0.1), ("slo_tbt_s", 0.01)])
def test_slo_objectives_decide_what_is_in_time(key, value):
    assert pay("slo", interval(FAST), **{key: value}) == [-1.0]


def test_instant_is_the_score():
    reward = pay("instant", interval(FAST), throughput_weight=1.0, latency_weight=0.1)
    assert reward == [pytest.approx(1.0 - 0.2)]


@pytest.mark.shows(
    "reward_config.throughput_weight",
    "reward_config.latency_weight",
    "reward_config.latency_threshold_s",
    "reward_config.threshold_penalty",
)
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("throughput_weight", 3.0, 3.0 - 3.0 - 0.5),
        ("latency_weight", 0.2, 1.0 - 6.0 - 0.5),
        ("latency_threshold_s", 40.0, 1.0 - 3.0),
        ("threshold_penalty", 2.0, 1.0 - 3.0 - 2.0),
    ],
)
def test_every_weight_of_the_score_counts(key, value, expected):
    assert pay("instant", interval(SLOW), **{key: value}) == [pytest.approx(expected)]


@pytest.mark.shows("reward_config.imbalance_weight")
def test_imbalance_costs():
    function = RewardFunction(RewardSection(mode="instant", imbalance_weight=1.0), 2)
    even, _ = function(snapshot(2.0, 2.0), interval())
    uneven, _ = function(snapshot(4.0, 0.0), interval())
    assert even == 0.0
    assert uneven == -1.0


def test_delta_is_the_change_of_the_score():
    first, second = pay("delta", interval(FAST), interval(FAST, FAST))
    assert first == 0.0
    assert second == pytest.approx(1.0)


@pytest.mark.shows("reward_config.ema_alpha")
def test_hybrid_pays_improvement_against_the_moving_averages():
    slow_start = pay("hybrid", interval(), interval(FAST), interval(FAST))
    assert slow_start[1] > slow_start[2]
    quick = pay("hybrid", interval(), interval(FAST), interval(FAST), ema_alpha=1.0)
    assert quick[2] < slow_start[2]


def test_curriculum_scales_threshold_and_penalty():
    function = RewardFunction(RewardSection(mode="instant"), 2)
    plain, _ = function(snapshot(1.0, 1.0), interval(SLOW))
    function.set_scales(StageScales(0, 1.0, 1.0, 2.0))
    stricter, _ = function(snapshot(1.0, 1.0), interval(SLOW))
    function.set_scales(StageScales(0, 1.0, 2.0, 2.0))
    looser, _ = function(snapshot(1.0, 1.0), interval(SLOW))
    assert stricter == plain - 0.5
    assert looser == plain + 0.5


@pytest.mark.parametrize("mode", ["latency", "ttft", "slo", "delta", "instant", "hybrid"])
def test_components_are_always_all_there(mode):
    _, components = RewardFunction(RewardSection(mode=mode), 2)(snapshot(1.0, 0.0), interval(FAST))
    assert len(components) == len(COMPONENTS)
    assert np.isfinite(components).all()
