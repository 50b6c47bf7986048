"""The compiled engine's results are Vidur's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from vidur_ext.config.sections import PLANNERS, SCHEDULERS
from vidur_ext.workload.request_table import RequestTable

RELATIVE = 1e-9
FEW = settings(max_examples=15, deadline=None)
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_same(compiled, vidur):
    np.testing.assert_array_equal(compiled.routing, vidur.routing)
    np.testing.assert_allclose(compiled.times, vidur.times, rtol=RELATIVE, atol=0)
    np.testing.assert_array_equal(compiled.preemptions, vidur.preemptions)
    np.testing.assert_array_equal(compiled.found_tokens, vidur.found_tokens)
    for mine, his in zip(compiled.batches, vidur.batches, strict=True):
        np.testing.assert_allclose(spans(mine), spans(his), rtol=RELATIVE, atol=0)
        assert [batch.requests for batch in mine] == [batch.requests for batch in his]
        assert [batch.q_tokens for batch in mine] == [batch.q_tokens for batch in his]
        assert [batch.kv_tokens for batch in mine] == [batch.kv_tokens for batch in his]
        assert [batch.blocks_used for batch in mine] == [batch.blocks_used for batch in his]


def spans(batches):
    return np.array([(batch.start, batch.end) for batch in batches]).reshape(-1, 2)


def with_arrivals_at_batch_ends(case, history):
    """Let copies of some requests arrive at the very instants at which batches ended, or at which
    these instants are seen."""
    ends = np.unique([batch.end for batches in history.batches for batch in batches])
    ends = ends[:: -(-len(ends) // 10)] + case.signal_delay_s
    return case.with_copies(np.arange(len(ends)) % len(case.table), ends)


def check(case, simulate_compiled, simulate_by_vidur):
    vidur = simulate_by_vidur(case)
    assert_same(simulate_compiled(case), vidur)
    collided = with_arrivals_at_batch_ends(case, vidur)
    assert_same(simulate_compiled(collided), simulate_by_vidur(collided))
    return vidur


def check_random(case, simulate_compiled, simulate_by_vidur):
    vidur = check(case, simulate_compiled, simulate_by_vidur)
    kind = case.cluster["replica_scheduler"]
    event(f"{kind}, preempting" if vidur.preemptions.any() else f"{kind}, not preempting")
    event(f"rule {case.rule}")
    if vidur.found_tokens.any():
        event("prefixes found")


@FEW
@given(data=st.data())
def test_times_replicas_and_batches_are_vidurs(
    data, draw_case, simulate_compiled, simulate_by_vidur
):
    check_random(draw_case(data), simulate_compiled, simulate_by_vidur)


def draw_late_case(data, draw_case):
    rule = st.sampled_from([name for name in SCHEDULERS if name not in PLANNERS])
    # A power of two: arrivals at batch ends, so late, are seen exactly at these ends.
    delay_s = st.sampled_from([2**-10, 2**-3, 2.0, 32.0])
    case = draw_case(data).routed_by(data.draw(rule, "rule"))
    return case.seen_late(data.draw(delay_s, "signal delay")).told_late(
        data.draw(st.just(0.0) | delay_s, "KV event delay")
    )


@FEW
@given(data=st.data())
def test_they_are_vidurs_where_routers_see_late(
    data, draw_case, simulate_compiled, simulate_by_vidur
):
    check_random(draw_late_case(data, draw_case), simulate_compiled, simulate_by_vidur)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_they_are_vidurs_where_routers_see_late_in_hundreds_of_clusters(
    data, draw_case, simulate_compiled, simulate_by_vidur
):
    check_random(draw_late_case(data, draw_case), simulate_compiled, simulate_by_vidur)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_times_replicas_and_batches_are_vidurs_in_hundreds_of_clusters(
    data, draw_case, simulate_compiled, simulate_by_vidur
):
    check_random(draw_case(data), simulate_compiled, simulate_by_vidur)


@pytest.mark.parametrize("kind", ["sarathi", "vllm"])
@pytest.mark.parametrize("requests", [1, 4])
def test_a_request_that_fills_the_cache_restarts_as_often_as_vidurs(
    kind, requests, make_case, simulate_compiled, simulate_by_vidur
):
    """Without a spare block it sends itself back at each token; Vidur's next attempt readmits it.

    Random clusters seldom get there.
    """
    cluster = {
        "num_replicas": 1,
        "replica_scheduler": kind,
        "block_size": 16,
        "num_blocks": 4,
        "watermark_blocks_fraction": 0.0,
        "max_tokens_in_batch": 64,
    }
    table = RequestTable(np.arange(requests) * 1e-3, np.full(requests, 4), np.full(requests, 60))
    case = make_case(cluster, "round_robin", 64, 0, table)
    vidur = check(case, simulate_compiled, simulate_by_vidur)
    assert vidur.preemptions.min() > 5
