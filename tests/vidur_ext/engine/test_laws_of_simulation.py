"""docs/invariants.md, law by law, on both engines."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vidur_ext.config.sections import ORACLES
from vidur_ext.workload.request_table import RequestTable

SOME = settings(max_examples=4, deadline=None)


@SOME
@given(data=st.data())
def test_requests_are_conserved(data, draw_case, simulate):
    """Everyone is served once, on one replica, and no token is lost or invented."""
    case = draw_case(data)
    history = simulate(case)
    caches = case.keeps_texts
    assert ((history.routing >= 0) & (history.routing < case.cluster["num_replicas"])).all()
    processed = np.zeros(len(case.table), dtype=np.int64)
    begun = np.zeros(len(case.table), dtype=np.int64)
    for replica, batches in enumerate(history.batches):
        for batch in batches:
            assert len(set(batch.requests)) == len(batch.requests)
            for request, q, kv in zip(batch.requests, batch.q_tokens, batch.kv_tokens, strict=True):
                assert history.routing[request] == replica
                assert q >= 1
                if q == kv or (caches and kv - q != processed[request]):
                    # It begins, or begins again, with what was found of it in the cache.
                    processed[request] = kv - q
                    begun[request] += 1
                processed[request] += q
    # The last chunk of a prompt yields a token that no batch processes on its own.
    np.testing.assert_array_equal(
        processed, case.table.prefill_tokens + case.table.decode_tokens - 1
    )
    if caches:  # all that a preempted request had may be found again
        assert (begun <= history.preemptions + 1).all()
    else:
        np.testing.assert_array_equal(begun, history.preemptions + 1)


@SOME
@given(data=st.data())
def test_clocks_are_monotonous(data, draw_case, simulate):
    """A request's life runs forward, and a replica forms one batch after the other."""
    case = draw_case(data)
    history = simulate(case)
    scheduled, first_token, completed = history.times.T
    assert (case.table.arrived_at <= scheduled).all()
    assert (scheduled < first_token).all()
    assert (first_token <= completed).all()
    for batches in history.batches:
        assert all(batch.start < batch.end for batch in batches)
        assert all(one.end <= two.start for one, two in itertools.pairwise(batches))


@SOME
@given(data=st.data())
def test_kv_blocks_are_conserved(data, draw_case, simulate):
    """Blocks in use hold what is cached, never exceed the cache, and all return."""
    case = draw_case(data)
    history = simulate(case)
    block_size = case.cluster["block_size"]
    for replica, batch in ((r, batch) for r, made in enumerate(history.batches) for batch in made):
        # The token that a decoding request produces now is stored by its next batch.
        each = [
            -(-(kv - 1 if q == 1 else kv) // block_size)
            for q, kv in zip(batch.q_tokens, batch.kv_tokens, strict=True)
        ]
        # Requests can have blocks of the prefix cache in common.
        held = max(each) if case.keeps_texts else sum(each)
        if case.cluster["replica_scheduler"] != "orca":
            assert held <= batch.blocks_used
        assert batch.blocks_used <= history.num_blocks[replica]
    assert history.blocks_left_in_use == 0


@SOME
@given(data=st.data())
def test_causes_precede_effects(data, draw_case, simulate):
    """What arrives later changes nothing that happened before."""
    case = draw_case(data)
    cut = data.draw(st.integers(1, len(case.table)), "requests kept")
    whole, part = simulate(case), simulate(case.with_table(case.table.slice(0, cut)))
    np.testing.assert_array_equal(part.routing, whole.routing[:cut])
    horizon = case.table.arrived_at[cut] if cut < len(case.table) else np.inf
    np.testing.assert_array_equal(
        np.where(part.times < horizon, part.times, horizon),
        np.where(whole.times[:cut] < horizon, whole.times[:cut], horizon),
    )
    for mine, all_of_them in zip(part.batches, whole.batches, strict=True):
        assert [b for b in mine if b.start < horizon] == [
            b for b in all_of_them if b.start < horizon
        ]


@SOME
@given(data=st.data())
def test_nobody_waits_for_an_idle_replica(data, draw_case, simulate):
    """Work is conserved: a replica stands still only while it has nothing to do."""
    case = draw_case(data)
    history = simulate(case)
    arrived, completed = case.table.arrived_at, history.times[:, 2]
    for replica, batches in enumerate(history.batches):
        mine = history.routing == replica
        ends = [-np.inf, *(batch.end for batch in batches)]
        for stopped, batch in zip(ends, batches, strict=False):
            if stopped < batch.start:
                assert batch.start in arrived[mine]
                assert (completed[mine & (arrived < batch.start)] <= stopped).all()


@SOME
@given(data=st.data())
def test_equal_inputs_give_equal_simulations(data, draw_case, simulate):
    """Determinism, to the bit."""
    case = draw_case(data)
    once, again = simulate(case), simulate(case)
    np.testing.assert_array_equal(once.times, again.times)
    np.testing.assert_array_equal(once.routing, again.routing)
    assert once.batches == again.batches


def with_other_outputs(case, rng):
    """Change how much each request will say, and nothing else."""
    table = case.table
    longest = case.max_tokens - table.prefill_tokens
    outputs = 1 + rng.integers(0, 2**31, len(table)) % longest
    return case.with_table(replace(table, decode_tokens=outputs))


def decisions_before_lengths_show(case, simulate, rng):
    """Return the routing under two sets of output lengths until a request's end tells them."""
    other_case = with_other_outputs(case, rng)
    one, other = simulate(case), simulate(other_case)
    differs = case.table.decode_tokens != other_case.table.decode_tokens
    shown = np.minimum(one.times[:, 2], other.times[:, 2])[differs].min(initial=np.inf)
    hidden = case.table.arrived_at <= shown
    return one.routing[hidden], other.routing[hidden]


@SOME
@given(data=st.data())
def test_routers_do_not_know_output_lengths(data, draw_case, simulate):
    """No oracle knowledge: a decision depends on lengths only once they have shown."""
    case = draw_case(data)
    assume(case.rule not in ORACLES)
    rng = np.random.default_rng(case.seed)
    one, other = decisions_before_lengths_show(case, simulate, rng)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_oracle_is_caught_knowing_output_lengths(oracle, make_case, simulate):
    rng = np.random.default_rng(0)
    table = RequestTable(np.arange(30) * 1e-3, rng.integers(1, 100, 30), rng.integers(100, 200, 30))
    cluster = {"num_replicas": 3, "replica_scheduler": "sarathi"}
    case = make_case(cluster=cluster, rule=oracle, max_tokens=300, seed=0, table=table)
    one, other = decisions_before_lengths_show(case, simulate, rng)
    assert (one != other).any()
