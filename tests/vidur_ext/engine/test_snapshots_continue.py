"""A restored simulation goes on as if nothing had happened."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.config.sections import PLANNERS
from vidur_ext.engine.layout import Replica
from vidur_ext.workload.request_table import RequestTable

HERE = (Replica.WAITING, Replica.MEMBERS)
SOME = settings(max_examples=6, deadline=None)


def route_to_the_end(simulation, stop_behind=None):
    """Route by a rule that depends on what the caller sees; return how many were routed."""
    routed = 0
    while routed != stop_behind and (request := simulation.advance()) >= 0:
        waiting_and_running = simulation.state.replicas[:, HERE].sum(axis=1)
        simulation.assign(int((waiting_and_running.argmin() + request) % len(waiting_and_running)))
        routed += 1
    return routed


def through_a_file(snapshot):
    """Write and read arrays as a checkpoint does: no pickle."""
    file = io.BytesIO()
    np.savez(file, **snapshot)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


@SOME
@given(data=st.data())
def test_going_on_from_a_snapshot_equals_going_on(data, draw_case, vidur_config, compiled):
    case = draw_case(data)
    config = vidur_config(case, scheduler="ppo_modular")
    straight = compiled(config, case.table)
    route_to_the_end(straight, data.draw(st.integers(0, len(case.table)), "decisions before"))
    if data.draw(st.booleans(), "while a decision is open"):
        straight.advance()
    snapshot, digest = straight.snapshot(), straight.digest()
    route_to_the_end(straight)

    resumed = compiled(config, case.table)
    resumed.restore(through_a_file(snapshot))
    assert resumed.digest() == digest
    route_to_the_end(resumed)
    assert resumed.digest() == straight.digest()

    straight.restore(snapshot)
    assert straight.digest() == digest
    route_to_the_end(straight)
    assert resumed.digest() == straight.digest()


@SOME
@given(data=st.data())
def test_a_compiled_rule_continues_with_its_random_numbers(
    data, draw_case, vidur_config, compiled, run_until
):
    case = draw_case(data)
    if case.rule not in PLANNERS:
        case = case.seen_late(data.draw(st.sampled_from([0.0, 0.01]), "signal delay"))
    config = vidur_config(case)
    whole = compiled(config, case.table)
    whole.run()
    half = compiled(config, case.table)
    run_until(half, case.table.arrived_at[0])
    resumed = compiled(config, case.table)
    resumed.restore(half.snapshot())
    resumed.run()
    digest = whole.digest()
    assert resumed.digest() == digest
    whole.restore(half.snapshot())
    whole.run()
    assert whole.digest() == digest


@SOME
@given(data=st.data())
def test_replaying_the_routing_gives_the_same_requests(data, draw_case, vidur_config, compiled):
    case = draw_case(data)
    routed = compiled(vidur_config(case), case.table)
    routed.run()
    kept = data.draw(st.integers(0, len(case.table)), "replayed")
    choices = np.where(np.arange(len(case.table)) < kept, routed.routing, -1)
    replayed = compiled(vidur_config(case), case.table, choices=choices)
    while (request := replayed.advance()) >= 0:
        assert request >= kept
        replayed.assign(int(routed.routing[request]))
    np.testing.assert_array_equal(replayed.state.times, routed.state.times)


def test_a_snapshot_is_not_touched_by_going_on(make_case, vidur_config, compiled):
    simulation = compiled(vidur_config(plain_case(make_case)), plain_table())
    snapshot = simulation.snapshot()
    before = {name: array.copy() for name, array in snapshot.items()}
    simulation.run()
    for name, array in before.items():
        np.testing.assert_array_equal(snapshot[name], array)


def test_digests_tell_states_apart(make_case, vidur_config, compiled):
    simulation = compiled(
        vidur_config(plain_case(make_case), scheduler="ppo_modular"), plain_table()
    )
    digests = {simulation.digest()}
    for _ in range(5):
        simulation.advance()
        digests.add(simulation.digest())
        simulation.assign(0)
        digests.add(simulation.digest())
    assert len(digests) == 11


def test_a_snapshot_of_another_cluster_is_refused(make_case, vidur_config, compiled):
    two = compiled(vidur_config(plain_case(make_case)), plain_table())
    three = compiled(vidur_config(plain_case(make_case, 3)), plain_table())
    with pytest.raises(UserError, match="another simulation"):
        three.restore(two.snapshot())


def plain_case(make_case, replicas=2):
    return make_case({"num_replicas": replicas}, "round_robin", 300, 0, plain_table())


def plain_table():
    rng = np.random.default_rng(1)
    return RequestTable(
        np.cumsum(rng.exponential(0.01, 20)), rng.integers(1, 200, 20), rng.integers(1, 99, 20)
    )
