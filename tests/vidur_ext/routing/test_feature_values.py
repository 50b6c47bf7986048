"""Every feature of a state made by hand, against numbers computed by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY
from ppo_scheduler.policy.past_observations import past_observation, present_digest
from vidur_ext.routing import features
from vidur_ext.routing.features import (
    FIRST_SLOT,
    NEXT_SLOTS,
    Feature,
    Shown,
    observation_schema,
)
from vidur_ext.routing.view import (
    Arriving,
    ArrivingRequest,
    ClusterSnapshot,
    Completion,
    Elapsed,
    Past,
    Predicted,
    Quantity,
    QueuedRequest,
    Remembered,
    SinceLastDecision,
    follow,
    new_history,
    new_memory,
    new_sight,
)

TABLE = {
    Quantity.WAITING: [2, 0, 1],
    Quantity.RUNNING: [4, 3, 0],
    Quantity.DECODING: [3, 1, 0],
    Quantity.PENDING_PREFILL_TOKENS: [700, 150, 90],
    Quantity.UNCACHED_PREFILL_TOKENS: [700, 150, 90],
    Quantity.CONTEXT_TOKENS: [5000, 2600, 200],
    Quantity.GENERATED_TOKENS: [120, 30, 0],
    Quantity.KV_BLOCKS_USED: [320, 170, 40],
    Quantity.KV_BLOCKS_TOTAL: [400, 500, 800],
    Quantity.RESTARTS: [1, 0, 2],
    Quantity.OLDEST_WAIT_S: [2.5, 0, 0.75],
    Quantity.MEAN_WAIT_S: [1.5, 0, 0.75],
    Quantity.BATCH_CAPACITY: [8, 6, 4],
    Quantity.REMAINING_OUTPUT_TOKENS: [900, 400, 250],
}
QUEUES = (
    (QueuedRequest(2.5, 300), QueuedRequest(0.5, 220)),
    (),
    (QueuedRequest(0.75, 90),),
)
REQUEST = ArrivingRequest(10.0, prompt_tokens=320, expected_output_tokens=64.0, output_tokens=77)
NOTHING = SinceLastDecision(0.0, 0.0, 0.0, ())
SECTION = {"output_length": "oracle", "history_alpha": 0.5}


def snapshot(**changed: list[float]) -> ClusterSnapshot:
    rows = {row.label: values for row, values in TABLE.items()} | changed
    assert list(rows) == [row.label for row in Quantity]
    return ClusterSnapshot(10.0, np.array(list(rows.values()), dtype=float), QUEUES)


@pytest.fixture
def decide(make_witness):
    """Return what is shown at the last of some decisions, by name: features [R], and in common."""

    def shown(*steps, section=SECTION, request=REQUEST):
        witness = make_witness(steps[-1][0].num_replicas, observation=section)
        for seen, interval in steps:
            observation = witness.show(seen, interval, request, witness.earn(seen, interval))
        schema = observation_schema(ObservationSection(**section))
        replicas = dict(zip(schema.replica, observation.replicas[0].T.tolist(), strict=True))
        common = dict(zip(schema.context, observation.context[0].tolist(), strict=True))
        telemetry = dict(zip(schema.telemetry, observation.telemetry[0].tolist(), strict=True))
        return replicas, common, telemetry

    return shown


def test_every_feature_of_a_replica(decide):
    replicas, _, _ = decide((snapshot(), NOTHING))
    # A replica needs ceil((pending + 320) / (512 - decoding)) full batches: 1020 / 509 -> 3,
    # 470 / 511 -> 1, 410 / 512 -> 1, of 0.1 s and 1e-5 s per token of context: 0.15, 0.126, 0.102.
    ttft = [3 * 0.15, 0.126, 0.102]
    # 64 output tokens of 0.01, 0.02, 0.03 s and the same for context: 0.06, 0.046, 0.032.
    latency = [0.45 + 64 * 0.06, 0.126 + 64 * 0.046, 0.102 + 64 * 0.032]
    expected = {
        "waiting": [2, 0, 1],
        "running": [4, 3, 0],
        "decoding": [3, 1, 0],
        "pending_prefill_tokens": [700, 150, 90],
        "context_tokens": [5000, 2600, 200],
        "kv_blocks_total": [400, 500, 800],
        "restarts": [1, 0, 2],
        "oldest_wait_s": [2.5, 0, 0.75],
        "mean_wait_s": [1.5, 0, 0.75],
        "generated_per_request": [120 / 4, 30 / 3, 0],
        # 320 prompt tokens take 20 blocks of 16.
        "kv_fraction_after_prompt": [340 / 400, 190 / 500, 60 / 800],
        "batch_fill": [4 / 8, 3 / 6, 0],
        "outstanding": [6, 3, 1],
        "kv_fraction": [320 / 400, 170 / 500, 40 / 800],
        "predicted_ttft_s": ttft,
        "predicted_latency_s": latency,
        "outstanding_gap": [5, 2, 0],
        "pending_prefill_gap": [610, 60, 0],
        "context_gap": [4800, 2400, 0],
        "kv_fraction_gap": [0.75, 0.29, 0],
        "predicted_ttft_s_gap": [0.348, 0.024, 0],
        "predicted_latency_s_gap": [4.29 - 2.15, 3.07 - 2.15, 0],
        "remaining_output_tokens": [900, 400, 250],
        "remaining_output_gap": [650, 150, 0],
        "outstanding_delta": [0, 0, 0],
        "outstanding_ema": [6, 3, 1],
        "outstanding_trend": [0, 0, 0],
        "outstanding_variance": [0, 0, 0],
        "outstanding_peak": [6, 3, 1],
        "outstanding_low": [6, 3, 1],
        "queue0_prompt_tokens": [300, 0, 90],
        "queue1_age_s": [0.5, 0, 0],
        "queue1_prompt_tokens": [220, 0, 0],
    }
    assert list(replicas) == list(expected)
    for name, values in expected.items():
        assert replicas[name] == pytest.approx(values, abs=1e-12), name


def test_one_running_request_has_generated_all(decide):
    replicas, _, _ = decide((snapshot(running=[1, 3, 0]), NOTHING))
    assert replicas["generated_per_request"] == [120, 10, 0]


def test_a_waiting_request_more_moves_the_history(decide):
    more = snapshot(waiting=[4, 0, 1])
    replicas, _, _ = decide((snapshot(), NOTHING), (more, NOTHING))
    # 6, then 8, by half: error 2, average 7; by an eighth: 6.25; variance 0.5 * (0.5 * 2 * 2).
    # The peak is the new value, the low rises halfway to the average.
    expected = {"delta": 2, "ema": 7, "trend": 0.75, "variance": 1, "peak": 8, "low": 6.5}
    for name, value in expected.items():
        first, second, third = replicas[f"outstanding_{name}"]
        assert first == pytest.approx(value, abs=1e-12), name
        same = name in ("ema", "peak", "low")
        assert (second, third) == ((3, 1) if same else (0, 0)), name


@pytest.mark.shows("observation.objective")
def test_what_a_first_token_weighs_is_shown_if_it_is_wanted(decide):
    """L is 8 by default: log(1 + 8)."""
    _, without, _ = decide((snapshot(), NOTHING))
    _, common, _ = decide((snapshot(), NOTHING), section={"objective": True})
    assert "log_ttft_weight" not in without
    assert list(common)[-1] == "log_ttft_weight"
    assert common["log_ttft_weight"] == pytest.approx(2.1972, abs=1e-4)


def test_what_is_known_of_prefix_caches_is_shown_if_something_is(decide):
    """Of 320 tokens 160 are found on the first replica, which so takes 540 + 320 - 160 = 700 tokens
    in two batches of 0.1 s, each with 1e-5 s per token of context."""
    found = replace(REQUEST, found_tokens=np.array([160.0, 0.0, 80.0]), session_replica=2)
    seen = snapshot(uncached_prefill_tokens=[540, 150, 60])
    without, common, _ = decide((seen, NOTHING), request=found)
    assert not [name for name in (*without, *common) if "found" in name or "uncached" in name]
    assert "session_here" not in without
    section = {"prefix_knowledge": "exact", "queue_slots": 0}
    replicas, common, _ = decide((seen, NOTHING), section=section, request=found)
    assert replicas["predicted_ttft_s"] == pytest.approx([2 * 0.15, 0.126, 0.102])
    assert list(replicas)[-6:] == [
        "found_tokens", "found_share", "session_here", "uncached_prefill_tokens", "found_gap",
        "uncached_prefill_gap",
    ]  # fmt: skip
    assert replicas["found_tokens"] == replicas["found_gap"] == [160, 0, 80]
    assert replicas["found_share"] == [0.5, 0, 0.25]
    assert replicas["session_here"] == [0, 0, 1]
    assert replicas["uncached_prefill_tokens"] == [540, 150, 60]
    assert replicas["uncached_prefill_gap"] == [480, 90, 0]
    assert list(common)[-1] == "max_found_share"
    assert common["max_found_share"] == 0.5


def test_more_slots_show_more_of_the_queue(decide):
    queue = tuple(QueuedRequest(3.0 - slot, 100 + slot) for slot in range(5))
    seen = ClusterSnapshot(10.0, snapshot().table, (queue, queue[:1], ()))
    replicas, _, _ = decide((seen, NOTHING), section={"queue_slots": 3, "history": False})
    names = [name for name in replicas if name.startswith("queue")]
    assert names == [
        "queue0_prompt_tokens", "queue1_age_s", "queue1_prompt_tokens", "queue2_age_s",
        "queue2_prompt_tokens",
    ]  # fmt: skip
    assert [replicas[name] for name in names] == [
        [100, 100, 0], [2, 0, 0], [101, 0, 0], [1, 0, 0], [102, 0, 0],
    ]  # fmt: skip
    assert replicas["predicted_latency_s_gap"][2] == 0.0


def done(e2e_s: float, ttft_s: float) -> Completion:
    return Completion(e2e_s, ttft_s, 0.0, 1)


FIRST = SinceLastDecision(0.5, 0.0, 0.0, (done(3.0, 0.4), done(5.0, 0.8)))
SECOND = SinceLastDecision(0.1, 0.0, 0.0, (done(8.0, 1.0), done(10.0, 3.0)))
COMMON = {
    "prompt_tokens": 320,
    "log_prompt": 5.768320995793772,
    "outstanding_per_replica": 10 / 3,
    "waiting_per_replica": 3 / 3,
    "min_pending_prefill_tokens": 90,
    "min_predicted_latency_s": 2.15,
    # Of 10 outstanding requests one replica has 6; an even share is 1 / 3.
    "balance": 1 - (0.6 - 1 / 3) / (2 / 3),
    "output_tokens": 77,
}


def assert_common(common, **expected: float) -> None:
    expected = COMMON | expected
    assert set(common) == set(expected)
    for name, value in expected.items():
        assert common[name] == pytest.approx(value, abs=1e-12), name


def test_every_common_feature_before_anything_has_happened(decide):
    _, common, telemetry = decide((snapshot(), NOTHING))
    unknown = ("qps", "latency_s", "ttft_s", "completions_per_arrival")
    past = ("qps_ema", "qps_trend", "qps_variance")
    assert_common(common, **dict.fromkeys((*unknown, *past), 0.0))
    assert telemetry["qps"] == 0.0
    assert math.isnan(telemetry["latency_s"])
    assert telemetry["balance"] == pytest.approx(COMMON["balance"])
    assert telemetry["elapsed_s"] == 0.0


def test_every_common_feature_after_the_first_completions(decide):
    _, common, telemetry = decide((snapshot(), FIRST))
    # The first gap is taken as it is; completions per arrival go a twentieth of the way from 0 to
    # 2; the first latencies are the means of 3 and 5, 0.4 and 0.8.
    assert_common(
        common, qps=2, completions_per_arrival=0.1, latency_s=4, ttft_s=0.6,
        qps_ema=2, qps_trend=0, qps_variance=0,
    )  # fmt: skip
    assert [telemetry[name] for name in TELEMETRY] == pytest.approx([2, 4, COMMON["balance"], 0.5])


RATE = 1 / 0.48


def test_every_common_feature_after_more_completions(decide):
    _, common, telemetry = decide((snapshot(), FIRST), (snapshot(), SECOND))
    # A twentieth of the way from 0.5 to 0.1 is 0.48; from 0.1 to 2 it is 0.195. Two completions
    # of 9 and 2 s on average weigh 1 - 0.95 ** 2 = 0.0975. By half and by an eighth qps moves
    # from 2 to 1 / 0.48 = 2.08333.
    error = RATE - 2
    expected = {
        "qps": RATE,
        "completions_per_arrival": 0.195,
        "latency_s": 4 + 0.0975 * 5,
        "ttft_s": 0.6 + 0.0975 * 1.4,
        "qps_ema": 2 + error / 2,
        "qps_trend": error / 2 - error / 8,
        "qps_variance": error**2 / 4,
    }
    assert_common(common, **expected)
    assert telemetry["latency_s"] == pytest.approx(4.4875)
    assert telemetry["qps"] == pytest.approx(RATE)


def test_without_a_completion_latencies_stay(decide):
    _, common, _ = decide((snapshot(), FIRST), (snapshot(), NOTHING))
    # Half a second, then none: 0.475 s; 0.1 completions per arrival, less a twentieth.
    assert common["qps"] == pytest.approx(1 / 0.475)
    assert common["completions_per_arrival"] == pytest.approx(0.095)
    assert (common["latency_s"], common["ttft_s"]) == (4.0, pytest.approx(0.6))


def test_balance_of_none_and_of_one_replica(decide):
    nobody = snapshot(waiting=[0, 0, 0], running=[0, 0, 0])
    assert decide((nobody, NOTHING))[1]["balance"] == 1.0
    all_on_one = snapshot(waiting=[2, 0, 0], running=[3, 0, 0])
    assert decide((all_on_one, NOTHING))[1]["balance"] == pytest.approx(0.0)
    alone = ClusterSnapshot(10.0, snapshot().table[:, :1], QUEUES[:1])
    assert decide((alone, NOTHING))[1]["balance"] == 1.0


@pytest.mark.parametrize(
    ("alpha", "values", "by_hand"),
    [
        # By half: 4, 6, 4; by an eighth: 4, 4.5, 4.1875. Errors 4 and -4: 0.5 * 0.5 * 16 = 4, then
        # 0.5 * (4 + 0.5 * 16) = 6. Peak: 8, then halfway from 8 to 4. Low: halfway to 6, then 2.
        (0.5, (4.0, 8.0, 2.0), (-6.0, 4.0, 4.0 - 4.1875, 6.0, 6.0, 2.0, 2.0, 4.1875)),
        # By a quarter: 4, 5, 5.5; by a sixteenth: 4, 4.25, 4.421875. Errors 4 and 2:
        # 0.75 * 0.25 * 16 = 3, then 0.75 * (3 + 0.25 * 4) = 3. Peak: 8, then 8 - 2.5 / 4. Low:
        # 4 + 1 / 4, then 4.25 + 1.25 / 4.
        (0.25, (4.0, 8.0, 7.0), (-1.0, 5.5, 1.078125, 3.0, 7.375, 4.5625, 7.0, 4.421875)),
    ],
)
def test_the_history_by_hand(alpha, values, by_hand):
    history = new_history(1)
    for value in values:
        follow(history, 0, value, alpha)
    rows = (
        Past.DELTA, Past.EMA, Past.TREND, Past.VARIANCE, Past.PEAK, Past.LOW, Past.LAST, Past.SLOW,
    )  # fmt: skip
    assert rows == tuple(Past)
    assert history[list(rows), 0].tolist() == pytest.approx(list(by_hand), abs=1e-12)


def test_without_history_or_oracle_nothing_is_left_of_them(decide):
    replicas, common, _ = decide((snapshot(), FIRST), section={"history": False, "queue_slots": 0})
    assert list(replicas)[-1] == "predicted_latency_s_gap"
    assert list(common)[-1] == "balance"
    assert replicas["predicted_latency_s_gap"] == pytest.approx([2.14, 0.92, 0.0])


def test_history_alone_comes_where_the_oracle_would(decide):
    replicas, common, _ = decide((snapshot(), FIRST), section={"history_alpha": 0.5})
    assert replicas["outstanding_ema"] == [6, 3, 1]
    assert replicas["queue0_prompt_tokens"] == [300, 0, 90]
    assert common["qps_ema"] == pytest.approx(2.0)


def test_every_kind_of_source_is_written_from_any_column_on():
    """As optional rows are, which stand after others."""
    sight, memory = new_sight(2, 0), new_memory(2)
    sight.table[Quantity.RUNNING] = [3, 6]
    sight.table[Quantity.WAITING] = [0, 1]
    sight.table[Quantity.BATCH_CAPACITY] = [4, 8]
    sight.predicted[Predicted.LATENCY_S] = [7, 9]
    sight.request[Arriving.OUTPUT_TOKENS] = 77
    memory.numbers[Remembered.COMPLETION_RATE] = 0.5
    memory.outstanding[Past.PEAK] = [11, 12]
    memory.qps[Past.TREND] = 5
    known = features.Known(sight, memory, 16.0, 8.0)
    rows = [
        Feature(f"row{number}", source)
        for number, source in enumerate(
            (Past.PEAK, features.batch_fill, Predicted.LATENCY_S, features.outstanding)
        )
    ]
    rows += [Feature("running", Quantity.RUNNING), rows[3]._replace(above_least=True)]
    replicas = np.zeros((2, 9))
    assert features._replica_writer(rows)(known, replicas, 2) == 8
    assert replicas.tolist() == [
        [0, 0, 11, 0.75, 7, 3, 3, 0, 0],
        [0, 0, 12, 0.75, 9, 7, 6, 4, 0],
    ]
    rows = [
        Feature(f"row{number}", source)
        for number, source in enumerate(
            (
                features.balance,
                Past.TREND,
                Arriving.OUTPUT_TOKENS,
                Remembered.COMPLETION_RATE,
                features.outstanding_per_replica,
            )
        )
    ]
    common = np.zeros(8)
    assert features._common_writer(rows)(known, common, 2) == 7
    assert common.tolist() == pytest.approx([0, 0, 0.6, 5, 77, 0.5, 5, 0])


def test_a_row_that_nothing_writes_is_refused():
    with pytest.raises(AssertionError, match="done: nothing writes"):
        features._replica_writer((Feature("done", Elapsed.COMPLETIONS),))
    with pytest.raises(AssertionError, match="a gap of no feature"):
        features._replica_writer((Feature("gap", Quantity.WAITING, above_least=True),))
    rows = (Feature("a", Past.EMA, shown=Shown.HISTORY), Feature("b", Quantity.WAITING))
    with pytest.raises(AssertionError, match="stands after"):
        features._shown_writer(rows, features._replica_writer)


def test_no_name_stands_for_two_columns():
    names = observation_schema(ObservationSection(**SECTION))
    for columns in (names.replica, names.context, names.telemetry):
        assert len(set(columns)) == len(columns)


def test_what_earlier_versions_saw_becomes_what_is_seen_now():
    """Every observation that a config can ask for has an earlier one."""
    earlier = {
        present_digest(digest) for digest in features_of_the_past() if past_observation(digest)
    }
    for output_length, history, slots in itertools.product(
        ("hidden", "oracle"), (False, True), (0, 1, 2, 7, 32)
    ):
        section = ObservationSection(
            output_length=output_length, history=history, queue_slots=slots
        )
        assert observation_schema(section).digest() in earlier


def features_of_the_past() -> set[str]:
    from ppo_scheduler.policy.past_observations import _pasts

    return set(_pasts())


def test_every_feature_says_its_unit_and_meaning():
    for feature in (*features.REPLICA, *FIRST_SLOT, *NEXT_SLOTS, *features.COMMON):
        assert feature.source.meaning, feature.name
