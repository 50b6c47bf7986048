"""What each reward mode pays for."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.control.curriculum import StageScales
from vidur_ext.config.sections import REWARD_MODES
from vidur_ext.routing.components import COMPONENT_NAMES
from vidur_ext.routing.rewards import MODES
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


@pytest.fixture
def pay(make_witness):
    """Return what a mode pays for intervals on two even replicas."""

    def paid(
        mode: str, *steps: SinceLastDecision, ttft_weight: float = 5.0, **keys: float
    ) -> list[float]:
        lookahead = {"ttft_weight": ttft_weight}
        witness = make_witness(2, reward={"mode": mode, **keys}, lookahead=lookahead)
        return [float(witness.earn(snapshot(2.0, 2.0), step).reward[0]) for step in steps]

    return paid


@pytest.mark.shows("reward_config.mode")
def test_latency_is_minus_the_time_integral_of_requests(pay):
    assert pay("latency", interval(request_seconds=3.5)) == [-3.5]


def test_ttft_is_minus_the_time_integral_of_unanswered_requests(pay):
    assert pay("ttft", interval(unanswered=1.25)) == [-1.25]


@pytest.mark.parametrize(("ttft_weight", "expected"), [(0.0, -3.5), (5.0, -9.75), (8.0, -13.5)])
def test_latency_ttft_weighs_what_is_unanswered(pay, ttft_weight, expected):
    step = interval(request_seconds=3.5, unanswered=1.25)
    assert pay("latency_ttft", step, ttft_weight=ttft_weight) == [expected]


def test_slo_counts_completions_in_time_minus_late_ones(pay):
    assert pay("slo", interval(FAST, FAST, SLOW)) == [1.0]


@pytest.mark.shows("reward_config.slo_ttft_s", "reward_config.slo_tbt_s")
@pytest.mark.parametrize(("key", "value"), [("slo_ttft_s", 0.1), ("slo_tbt_s", 0.01)])
def test_slo_objectives_decide_what_is_in_time(pay, key, value):
    assert pay("slo", interval(FAST), **{key: value}) == [-1.0]


def test_instant_is_the_score(pay):
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
def test_every_weight_of_the_score_counts(pay, key, value, expected):
    assert pay("instant", interval(SLOW), **{key: value}) == [pytest.approx(expected)]


@pytest.mark.shows("reward_config.imbalance_weight")
def test_imbalance_costs(make_witness):
    witness = make_witness(2, reward={"mode": "instant", "imbalance_weight": 1.0})
    assert witness.earn(snapshot(2.0, 2.0), interval()).reward == 0.0
    assert witness.earn(snapshot(4.0, 0.0), interval()).reward == -1.0


def test_delta_is_the_change_of_the_score(pay):
    first, second = pay("delta", interval(FAST), interval(FAST, FAST))
    assert first == 0.0
    assert second == pytest.approx(1.0)


@pytest.mark.shows("reward_config.ema_alpha")
def test_hybrid_pays_improvement_against_the_moving_averages(pay):
    slow_start = pay("hybrid", interval(), interval(FAST), interval(FAST))
    assert slow_start[1] > slow_start[2]
    quick = pay("hybrid", interval(), interval(FAST), interval(FAST), ema_alpha=1.0)
    assert quick[2] < slow_start[2]


def test_curriculum_scales_threshold_and_penalty(make_witness):
    def pay_in(scales: StageScales) -> float:
        witness = make_witness(2, reward={"mode": "instant"}, scales=scales)
        return float(witness.earn(snapshot(1.0, 1.0), interval(SLOW)).reward[0])

    plain = pay_in(StageScales(0))
    assert pay_in(StageScales(0, 1.0, 1.0, 2.0)) == plain - 0.5
    assert pay_in(StageScales(0, 1.0, 2.0, 2.0)) == plain + 0.5


@pytest.mark.parametrize("mode", REWARD_MODES)
def test_components_are_always_all_there(make_witness, mode):
    earned = make_witness(2, reward={"mode": mode}).earn(snapshot(1.0, 0.0), interval(FAST))
    assert earned.components.shape == (1, len(COMPONENT_NAMES))
    assert np.isfinite(earned.components).all()


def test_every_mode_is_a_file_with_its_docstring_and_reward():
    assert set(REWARD_MODES) == {
        "delta", "hybrid", "instant", "latency", "latency_ttft", "slo", "ttft",
    }  # fmt: skip
    assert set(MODES) == set(REWARD_MODES)


# Three intervals on two replicas, whose values follow by hand. Weights: throughput 2, latency 0.25,
# imbalance 0.3; penalty 0.75 above 5 s; objectives 1 s and 0.1 s; averages follow by half.
#
# 1: 4 and 2 requests: mean 3, deviations 1 and -1, so their variation is 1 / 3.
#    Three completions, one in time (the second is late with its first token, the third between
#    tokens), of 4 + 10 + 1 = 15 s: mean 5 s, which is not above 5 s.
# 2: 2 and 2 requests, no completion: the mean latency is still 5 s.
# 3: 2 and 2 requests, one completion of 8 s.
WEIGHTS = {
    "throughput_weight": 2.0,
    "latency_weight": 0.25,
    "imbalance_weight": 0.3,
    "threshold_penalty": 0.75,
    "latency_threshold_s": 5.0,
    "ema_alpha": 0.5,
}
THREE = (
    Completion(e2e_s=4.0, ttft_s=1.0, tbt_s=0.1, output_tokens=10),
    Completion(e2e_s=10.0, ttft_s=1.5, tbt_s=0.05, output_tokens=10),
    Completion(e2e_s=1.0, ttft_s=0.2, tbt_s=0.2, output_tokens=10),
)
ONE = Completion(e2e_s=8.0, ttft_s=3.0, tbt_s=0.05, output_tokens=10)


def crowded(waiting: list[float], running: list[float]) -> ClusterSnapshot:
    table = snapshot(*running).table
    table[Quantity.WAITING] = waiting
    return ClusterSnapshot(0.0, table)


STEPS = (
    (crowded([1.0, 0.0], [3.0, 2.0]), interval(*THREE, request_seconds=7.0, unanswered=2.5)),
    (crowded([0.0, 1.0], [2.0, 1.0]), interval(request_seconds=1.0, unanswered=0.0)),
    (crowded([1.0, 1.0], [1.0, 1.0]), interval(ONE, request_seconds=2.0, unanswered=0.5)),
)
COMPONENTS_BY_HAND = {
    "latency": [-7.0, -1.0, -2.0],
    "ttft": [-2.5, 0.0, -0.5],
    "slo": [1.0 - 2.0, 0.0, -1.0],
    "throughput": [2.0 * 3, 0.0, 2.0 * 1],
    "mean_latency": [-0.25 * 5.0, -0.25 * 5.0, -0.25 * 8.0],
    "imbalance": [-0.3 / 3.0, 0.0, 0.0],
    "threshold_penalty": [0.0, 0.0, -0.75],
    # Scores: 6 - 1.25 - 0.1 - 0 = 4.65; 0 - 1.25 = -1.25; 2 - 2 - 0.75 = -0.75.
    "change": [0.0, -1.25 - 4.65, -0.75 + 1.25],
}
# hybrid: the penalty at the threshold (5 s) is half of it, 0.6 above (8 s) it is 0.75 / (1 + e^-6).
# The averages of throughput are 0, 3, 1.5 and those of latency 0, 0.625, 0.9375 when they are
# compared with 6, 0, 2 and 1.25, 1.25, 2.
LOGISTIC = 0.75 / (1.0 + 0.0024787521766663585)
HYBRID_BY_HAND = COMPONENTS_BY_HAND | {
    "threshold_penalty": [-0.375, -0.375, -LOGISTIC],
    "change": [6.0 - 1.25, (0.0 - 3.0) - (1.25 - 0.625), (2.0 - 1.5) - (2.0 - 0.9375)],
}
REWARDS_BY_HAND = {
    "latency": COMPONENTS_BY_HAND["latency"],
    "ttft": COMPONENTS_BY_HAND["ttft"],
    "latency_ttft": [-7.0 - 8.0 * 2.5, -1.0, -2.0 - 8.0 * 0.5],  # L is 8
    "slo": COMPONENTS_BY_HAND["slo"],
    "delta": COMPONENTS_BY_HAND["change"],
    "instant": [4.65, -1.25, -0.75],
    "hybrid": [
        6.0 - 1.25 - 0.1 - 0.375 + 4.75,
        0.0 - 1.25 - 0.375 - 3.625,
        2.0 - 2.0 - LOGISTIC - 0.5625,
    ],
}


@pytest.mark.parametrize("mode", REWARD_MODES)
def test_rewards_and_components_are_those_computed_by_hand(make_witness, mode):
    witness = make_witness(2, reward={"mode": mode, **WEIGHTS})
    earned = [witness.earn(*step) for step in STEPS]
    rewards = [float(one.reward[0]) for one in earned]
    assert rewards == pytest.approx(REWARDS_BY_HAND[mode], abs=1e-12)
    expected = HYBRID_BY_HAND if mode == "hybrid" else COMPONENTS_BY_HAND
    assert list(expected) == list(COMPONENT_NAMES)
    for column, name in enumerate(COMPONENT_NAMES):
        seen = [float(one.components[0, column]) for one in earned]
        assert seen == pytest.approx(expected[name], abs=1e-12), name


def test_an_empty_cluster_is_even(make_witness):
    witness = make_witness(3, reward={"mode": "instant"})
    earned = witness.earn(snapshot(0.0, 0.0, 0.0), interval())
    assert earned.components[0, COMPONENT_NAMES.index("imbalance")] == 0.0
