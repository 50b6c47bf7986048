"""Turns that wait for the answers before them: both engines alike, and what that means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from vidur_ext.config.sections import PLANNERS, SCHEDULERS
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.vidur.engine_inputs import cluster_of
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import Sessions

FEW = settings(max_examples=15, deadline=None)
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(case, simulate_compiled, simulate_by_vidur):
    ours, vidurs = simulate_compiled(case), simulate_by_vidur(case)
    np.testing.assert_array_equal(ours.routing, vidurs.routing)
    np.testing.assert_allclose(ours.arrived_at, vidurs.arrived_at, rtol=1e-9, atol=0)
    np.testing.assert_allclose(ours.times, vidurs.times, rtol=1e-9, atol=0)
    np.testing.assert_array_equal(ours.preemptions, vidurs.preemptions)
    np.testing.assert_array_equal(ours.found_tokens, vidurs.found_tokens)
    event(f"{case.cluster['replica_scheduler']}, waiting turns: {case.table.waits}")


@FEW
@given(data=st.data())
def test_both_engines_serve_them_alike(data, draw_case, simulate_compiled, simulate_by_vidur):
    check(draw_case(data).with_sessions(data), simulate_compiled, simulate_by_vidur)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_both_engines_serve_them_alike_in_hundreds_of_clusters(
    data, draw_case, simulate_compiled, simulate_by_vidur
):
    check(draw_case(data).with_sessions(data), simulate_compiled, simulate_by_vidur)


def conversation(**changes):
    """Return two sessions of two turns; the second turns wait 1 s and 0 s for their answers."""
    columns = {
        "session": np.array([0, 1, 0, 1]),
        "turn": np.array([0, 0, 1, 1]),
        "previous": np.array([-1, -1, 0, 1]),
        "think_s": np.array([0.0, 0.0, 1.0, 0.0]),
    }
    sessions = Sessions(**(columns | changes))
    tokens = np.full(4, 100)
    return RequestTable(np.array([0.0, 5.0, 6.0, 7.0]), tokens, tokens, None, sessions)


ONE = {"num_replicas": 1, "replica_scheduler": "sarathi", "block_size": 16, "num_blocks": 4000}


def test_a_turn_arrives_a_think_time_after_the_answer(make_case, simulate):
    """Whatever the table's own time of it, which is nominal."""
    history = simulate(make_case(ONE, "round_robin", 300, 0, conversation()))
    first, second = history.arrived_at[:2]
    assert [first, second] == [0.0, 5.0]
    answered = history.times[:2, 2]
    paused = history.arrived_at[2:] - answered - np.array([1.0, 0.0])
    assert (paused >= 0.0).all()
    assert (paused < 0.05).all(), "what a request spends outside of its batches"


def test_turns_arrive_in_the_order_of_their_answers_not_of_their_rows(make_case, simulate):
    """The decisions of round robin follow arrivals: row 3 is the third to come."""
    table = conversation(think_s=np.array([0.0, 0.0, 9.0, 0.0]))
    cluster = {**ONE, "num_replicas": 4}
    history = simulate(make_case(cluster, "round_robin", 300, 0, table))
    assert history.arrived_at.argsort().tolist() == [0, 1, 3, 2]
    assert history.routing.tolist() == [0, 1, 3, 2]


def test_a_slow_cluster_is_asked_less(make_case, simulate):
    """That is what closes the loop: the same users, thinking as long, send later."""
    quick, slow = (
        simulate(
            make_case({**ONE, "devices": (device,)}, "round_robin", 300, 0, conversation())
        ).arrived_at
        for device in ("h100", "a40")
    )
    assert (slow[2:] > quick[2:] + 0.05).all()
    assert (slow[:2] == quick[:2]).all()


@FEW
@given(data=st.data())
def test_a_signal_that_is_infinitely_little_late_changes_nothing(
    data, draw_case, vidur_config, compiled
):
    """The state that follows a simulation sees its turns arrive when they do."""
    rule = st.sampled_from([name for name in SCHEDULERS if name not in PLANNERS])
    case = draw_case(data).with_sessions(data).routed_by(data.draw(rule, "rule"))
    present, late = (
        compiled(vidur_config(one), one.table) for one in (case, case.seen_late(1e-300))
    )
    present.run()
    late.run()
    np.testing.assert_array_equal(late.routing, present.routing)
    assert late.completed_at.tobytes() == present.completed_at.tobytes()


@FEW
@given(data=st.data())
def test_going_on_from_a_snapshot_is_going_on(data, draw_case, vidur_config, compiled):
    case = draw_case(data).with_sessions(data)
    config = vidur_config(case, scheduler="ppo_modular")
    whole, part = (compiled(config, case.table) for _ in range(2))
    kept = data.draw(st.integers(0, len(case.table) - 1), "decisions before the snapshot")
    replicas = len(whole.state.replicas)
    snapshot = None
    for decision in range(len(case.table)):
        request = whole.advance()
        if decision == kept:
            snapshot = whole.snapshot()
        whole.assign(request % replicas)
    assert whole.advance() == -1
    part.restore(snapshot)
    for _ in range(kept, len(case.table)):
        part.assign(part.advance() % replicas)
    assert part.advance() == -1
    assert part.digest() == whole.digest()


@FEW
@given(data=st.data())
def test_environments_serve_them_as_single_simulations(data, draw_case, vidur_config, compiled):
    cases = [draw_case(data).with_sessions(data)]
    config = vidur_config(cases[0], scheduler="ppo_modular")
    table = cases[0].table
    plain = RequestTable(table.arrived_at, table.prefill_tokens, table.decode_tokens, table.prompts)
    envs = RoutingEnvironments(cluster_of(config), RouterConfig(), 2)
    envs.begin([table, plain])
    while envs.waiting:
        envs.step(envs.arriving % envs.num_replicas)
    for env, own in enumerate((table, plain)):
        alone = compiled(config, own, choices=np.arange(len(own)) % envs.num_replicas)
        alone.run()
        assert envs.completed_at[env].tobytes() == alone.completed_at.tobytes()
        assert envs.arrived_at[env].tobytes() == alone.arrived_at.tobytes()
