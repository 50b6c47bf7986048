"""Every number that a router sees, worked out by hand, on either engine.

One replica with room for one request in a batch, and one that stays idle. A, B and C come while
nothing has run yet, D right after A's first token, E right after B's.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidur_ext.engine import CompiledSimulation
from vidur_ext.routing.estimator import Rate
from vidur_ext.routing.view import Arriving, Elapsed, Predicted, Quantity, Queued
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.request_table import RequestTable

PROMPTS = [100, 40, 64, 30, 33]
OUTPUTS = [20, 5, 10, 7, 9]
A_BLOCKS, B_BLOCKS, NUM_BLOCKS = 7, 3, 200
"""Of 16 tokens: 100 and 40 prompt tokens."""
SLOTS = 2


@pytest.fixture(scope="module")
def config():
    from vidur_ext.config.training_config import TrainingConfig

    return TrainingConfig.model_validate(
        {
            "cluster": {"num_replicas": 2, "batch_size_cap": 1, "num_blocks": NUM_BLOCKS},
            "observation": {"queue_slots": SLOTS},
            "parallel_training": {"num_envs": 1},
        }
    )


@pytest.fixture(scope="module")
def cluster(config):
    return engine_cluster(config)


@pytest.fixture(scope="module")
def table(cluster):
    """A to E: D and E arrive by what the requests before them took."""
    arrived = [0.0, 1e-6, 2e-6]
    first, second = (_first_token(cluster, arrived, who) for who in (0, 1))
    return RequestTable(
        np.array([*arrived, first + 1e-6, second + 1e-6]), np.array(PROMPTS), np.array(OUTPUTS)
    )


def _first_token(cluster, arrived, who):
    count = len(arrived)
    table = RequestTable(np.array(arrived), np.array(PROMPTS[:count]), np.array(OUTPUTS[:count]))
    simulation = CompiledSimulation(cluster, table, None, choices=np.zeros(count, dtype=np.int64))
    simulation.run()
    return float(simulation.prefill_completed_at[who])


@pytest.fixture(scope="module", params=["vidur", "compiled"])
def seen(request, sights, config, table):
    """Return the arrays of the sight at every decision."""
    seen = sights[request.param](config, table)
    assert len(seen) == len(table)
    return seen


IDLE = dict.fromkeys(Quantity, 0.0) | {
    Quantity.KV_BLOCKS_TOTAL: NUM_BLOCKS,
    Quantity.BATCH_CAPACITY: 1,
}


def expected_quantities(decision, table):
    """Return what replica 0 shows when request C, D or E waits."""
    now, arrived = table.arrived_at[decision], table.arrived_at
    if decision == 2:
        # A's prompt is in its first batch, B waits.
        return IDLE | {
            Quantity.WAITING: 1,
            Quantity.RUNNING: 1,
            Quantity.PENDING_PREFILL_TOKENS: 100 + 40,
            Quantity.UNCACHED_PREFILL_TOKENS: 100 + 40,
            Quantity.KV_BLOCKS_USED: A_BLOCKS,
            Quantity.OLDEST_WAIT_S: now - arrived[1],
            Quantity.MEAN_WAIT_S: now - arrived[1],
            Quantity.REMAINING_OUTPUT_TOKENS: 20 + 5,
        }
    if decision == 3:
        # A has its first token, B and C wait.
        return IDLE | {
            Quantity.WAITING: 2,
            Quantity.RUNNING: 1,
            Quantity.DECODING: 1,
            Quantity.PENDING_PREFILL_TOKENS: 40 + 64,
            Quantity.UNCACHED_PREFILL_TOKENS: 40 + 64,
            Quantity.CONTEXT_TOKENS: 101,
            Quantity.GENERATED_TOKENS: 1,
            Quantity.KV_BLOCKS_USED: A_BLOCKS,
            Quantity.OLDEST_WAIT_S: now - arrived[1],
            Quantity.MEAN_WAIT_S: now - (arrived[1] + arrived[2]) / 2,
            Quantity.REMAINING_OUTPUT_TOKENS: 19 + 5 + 10,
        }
    # A is gone, B has its first token, C and D wait.
    return IDLE | {
        Quantity.WAITING: 2,
        Quantity.RUNNING: 1,
        Quantity.DECODING: 1,
        Quantity.PENDING_PREFILL_TOKENS: 64 + 30,
        Quantity.UNCACHED_PREFILL_TOKENS: 64 + 30,
        Quantity.CONTEXT_TOKENS: 41,
        Quantity.GENERATED_TOKENS: 1,
        Quantity.KV_BLOCKS_USED: B_BLOCKS,
        Quantity.OLDEST_WAIT_S: now - arrived[2],
        Quantity.MEAN_WAIT_S: now - (arrived[2] + arrived[3]) / 2,
        Quantity.REMAINING_OUTPUT_TOKENS: 4 + 10 + 7,
    }


@pytest.mark.parametrize("decision", [2, 3, 4])
def test_the_replicas(seen, table, decision):
    rows = seen[decision][0]
    expected = expected_quantities(decision, table)
    for quantity in Quantity:
        busy, idle = rows[quantity]
        assert busy == pytest.approx(expected[quantity], rel=1e-9, abs=1e-12), quantity
        assert idle == IDLE[quantity], quantity


def test_the_waiting_requests(seen, table):
    now, arrived = table.arrived_at[4], table.arrived_at
    c, d = seen[4][1][0]
    assert c[Queued.AGE_S] == pytest.approx(now - arrived[2])
    assert d[Queued.AGE_S] == pytest.approx(now - arrived[3])
    assert (c[Queued.PROMPT_TOKENS], d[Queued.PROMPT_TOKENS]) == (64, 30)
    assert not seen[4][1][1].any()


def test_the_time_since_the_last_decision(seen, table, cluster):
    """From D's arrival to E's: A completes, B, C and D stay, and B gets its first token."""
    routed = CompiledSimulation(cluster, table, None, choices=np.zeros(5, dtype=np.int64))
    routed.run()
    before, now = table.arrived_at[3:]
    done, first = routed.completed_at[0], routed.prefill_completed_at[1]
    interval = seen[4][2]
    assert interval[Elapsed.DURATION_S] == pytest.approx(now - before)
    assert interval[Elapsed.REQUEST_SECONDS] == pytest.approx(3 * (now - before) + done - before)
    unanswered = 2 * (now - before) + first - before
    assert interval[Elapsed.UNANSWERED_SECONDS] == pytest.approx(unanswered)
    assert interval[Elapsed.COMPLETIONS] == 1
    assert interval[Elapsed.E2E_SUM_S] == pytest.approx(done)
    assert interval[Elapsed.TTFT_SUM_S] == pytest.approx(routed.prefill_completed_at[0])


def test_the_arriving_request(seen):
    first, last = seen[0][3], seen[4][3]
    assert (first[Arriving.PROMPT_TOKENS], first[Arriving.OUTPUT_TOKENS]) == (100, 20)
    assert (last[Arriving.PROMPT_TOKENS], last[Arriving.OUTPUT_TOKENS]) == (33, 9)
    # The prior weighs as much as 16 requests of 128 tokens; A's 20 tokens are known at the end.
    assert first[Arriving.EXPECTED_OUTPUT_TOKENS] == 128.0
    assert last[Arriving.EXPECTED_OUTPUT_TOKENS] == (16 * 128 + 20) / 17


def test_the_predictions(seen, cluster):
    known, predicted = cluster.estimates, seen[4][4]
    slope, chunk_s = known.rates[0, [Rate.SLOPE, Rate.CHUNK_S]]
    prefill_s, decode_s = known.rates[0, [Rate.PREFILL_S_PER_TOKEN, Rate.DECODE_TOKEN_S]]
    # 94 + 33 prompt tokens fit into one batch of 512 beside the decoding request; one request more
    # than B would run, but a batch holds one.
    ttft = math.ceil((94 + 33) / (512 - 1)) * (chunk_s + slope * 41)
    latency = ttft + (16 * 128 + 20) / 17 * (known.base[0, 1] + slope * 41)
    assert predicted[Predicted.TTFT_S, 0] == pytest.approx(ttft)
    assert predicted[Predicted.LATENCY_S, 0] == pytest.approx(latency)
    assert predicted[Predicted.REMAINING_WORK_S, 0] == pytest.approx(94 * prefill_s + 21 * decode_s)
    assert predicted[Predicted.REMAINING_WORK_S, 1] == 0.0


def test_both_engines_show_the_same(sights, config, table):
    vidur, compiled = sights["vidur"](config, table), sights["compiled"](config, table)
    for one, other in zip(vidur, compiled, strict=True):
        for index in (0, 1, 3, 4):
            np.testing.assert_array_equal(one[index], other[index])
        # Vidur adds each request's seconds, the engine all at once; in time is the reward's own.
        rows = [entry for entry in Elapsed if entry != Elapsed.IN_TIME]
        np.testing.assert_allclose(one[2][rows], other[2][rows], rtol=1e-9, atol=1e-12)
