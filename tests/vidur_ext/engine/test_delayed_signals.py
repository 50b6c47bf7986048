"""What a router sees of a cluster whose signals reach it late, on either engine.

A second late. All five requests go to a replica with room for one in a batch: A at once, B half a
second after it; C sees the cluster right after A's arrival, D right after A's first token, E right
after A's last one. A is served in less than half a second.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.config.sections import PLANNERS, SCHEDULERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.routing.view import Arriving, Elapsed, Quantity, Queued
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.request_table import RequestTable

DELAY_S = 1.0
PROMPTS = [100, 40, 64, 30, 33]
OUTPUTS = [20, 5, 10, 7, 9]
A_BLOCKS, NUM_BLOCKS = 7, 200
"""Of 16 tokens: 100 prompt tokens and the first ones of output."""
LATE = [name for name in SCHEDULERS if name not in PLANNERS]


def late_config(delay_s):
    return TrainingConfig.model_validate(
        {
            "cluster": {"num_replicas": 2, "batch_size_cap": 1, "num_blocks": NUM_BLOCKS},
            "observation": {"queue_slots": 2, "signal_delay_s": delay_s},
            "parallel_training": {"num_envs": 1},
            "evaluation": {"enabled": False},
        }
    )


@pytest.fixture(scope="module")
def served_alone():
    """When A gets its first and its last token [s]."""
    table = RequestTable(np.zeros(1), np.array(PROMPTS[:1]), np.array(OUTPUTS[:1]))
    simulation = CompiledSimulation(engine_cluster(late_config(0.0)), table, "round_robin")
    simulation.run()
    return float(simulation.prefill_completed_at[0]), float(simulation.completed_at[0])


@pytest.fixture(scope="module")
def table(served_alone):
    first, last = served_alone
    assert last < 0.5
    arrived = [0.0, 0.5, *(DELAY_S + after + 1e-6 for after in (0.0, first, last))]
    return RequestTable(np.array(arrived), np.array(PROMPTS), np.array(OUTPUTS))


@pytest.fixture(scope="module", params=["vidur", "compiled"])
def seen(request, sights, table):
    """Return the arrays of the sight at every decision."""
    return sights[request.param](late_config(DELAY_S), table)


IDLE = dict.fromkeys(Quantity, 0.0) | {
    Quantity.KV_BLOCKS_TOTAL: NUM_BLOCKS,
    Quantity.BATCH_CAPACITY: 1,
}


def shown(seen, decision):
    return dict(zip(Quantity, seen[decision][0][:, 0], strict=True))


@pytest.mark.shows("observation.signal_delay_s")
def test_a_request_that_runs_is_still_seen_waiting(seen, table):
    """At B's arrival A is served already; the router knows that it dispatched it, and no more."""
    assert late_config(DELAY_S).observation.signal_delay_s == DELAY_S
    expected = IDLE | {
        Quantity.WAITING: 1,
        Quantity.PENDING_PREFILL_TOKENS: 100,
        Quantity.UNCACHED_PREFILL_TOKENS: 100,
        Quantity.REMAINING_OUTPUT_TOKENS: 20,
        Quantity.OLDEST_WAIT_S: 0.5,
        Quantity.MEAN_WAIT_S: 0.5,
    }
    assert shown(seen, 1) == pytest.approx(expected)


def test_a_replica_is_seen_as_it_was_with_what_it_got_since(seen, table):
    """C sees A in its first batch, and B, which came since, behind it."""
    wait = table.arrived_at[2] - 0.5
    expected = IDLE | {
        Quantity.WAITING: 1,
        Quantity.RUNNING: 1,
        Quantity.PENDING_PREFILL_TOKENS: 100 + 40,
        Quantity.UNCACHED_PREFILL_TOKENS: 100 + 40,
        Quantity.KV_BLOCKS_USED: A_BLOCKS,
        Quantity.REMAINING_OUTPUT_TOKENS: 20 + 5,
        Quantity.OLDEST_WAIT_S: wait,
        Quantity.MEAN_WAIT_S: wait,
    }
    assert shown(seen, 2) == pytest.approx(expected)


def test_progress_is_seen_late(seen, table):
    """D sees A's first token, B and C waiting."""
    waits = table.arrived_at[3] - table.arrived_at[1:3]
    expected = IDLE | {
        Quantity.WAITING: 2,
        Quantity.RUNNING: 1,
        Quantity.DECODING: 1,
        Quantity.PENDING_PREFILL_TOKENS: 40 + 64,
        Quantity.UNCACHED_PREFILL_TOKENS: 40 + 64,
        Quantity.CONTEXT_TOKENS: 101,
        Quantity.GENERATED_TOKENS: 1,
        Quantity.KV_BLOCKS_USED: A_BLOCKS,
        Quantity.REMAINING_OUTPUT_TOKENS: 19 + 5 + 10,
        Quantity.OLDEST_WAIT_S: waits[0],
        Quantity.MEAN_WAIT_S: waits.mean(),
    }
    assert shown(seen, 3) == pytest.approx(expected)
    queue = seen[3][1][0]
    np.testing.assert_allclose(queue[:, Queued.AGE_S], waits)
    np.testing.assert_array_equal(queue[:, Queued.PROMPT_TOKENS], [40, 64])


def test_a_completion_is_seen_late_and_time_at_once(seen, table):
    """A was completed before B came; E is the first to see it."""
    completions = [sight[2][Elapsed.COMPLETIONS] for sight in seen]
    assert completions == [0, 0, 0, 0, 1]
    known = [sight[3][Arriving.EXPECTED_OUTPUT_TOKENS] for sight in seen]
    assert known == [128.0] * 4 + [(16 * 128 + 20) / 17]
    gaps = [sight[2][Elapsed.DURATION_S] for sight in seen]
    np.testing.assert_allclose(gaps, [0.0, *np.diff(table.arrived_at)])


def test_the_other_replica_stays_idle(seen):
    for sight in seen:
        assert dict(zip(Quantity, sight[0][:, 1], strict=True)) == IDLE


@pytest.mark.parametrize("engine", ["vidur", "compiled"])
def test_the_longest_delay_shows_nothing_but_the_own_dispatches(sights, engine, table):
    for decision, sight in enumerate(sights[engine](late_config(60.0), table)):
        got = dict(zip(Quantity, sight[0][:, 0], strict=True))
        waits = table.arrived_at[decision] - table.arrived_at[:decision]
        assert got == pytest.approx(
            IDLE
            | {
                Quantity.WAITING: decision,
                Quantity.PENDING_PREFILL_TOKENS: sum(PROMPTS[:decision]),
                Quantity.UNCACHED_PREFILL_TOKENS: sum(PROMPTS[:decision]),
                Quantity.REMAINING_OUTPUT_TOKENS: sum(OUTPUTS[:decision]),
                Quantity.OLDEST_WAIT_S: max(waits, default=0.0),
                Quantity.MEAN_WAIT_S: waits.mean() if decision else 0.0,
            }
        )


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_an_infinitely_short_delay_is_none(data, draw_case, vidur_config, compiled):
    case = draw_case(data).routed_by(data.draw(st.sampled_from(LATE), "rule"))
    at_once, late = (
        compiled(vidur_config(one), case.table) for one in (case, case.seen_late(1e-300))
    )
    at_once.run()
    late.run()
    np.testing.assert_array_equal(late.routing, at_once.routing)
    np.testing.assert_array_equal(late.state.times, at_once.state.times)


def test_who_sees_late_spreads_by_what_it_dispatched():
    """A router that sees nothing but its own dispatches takes turns, though replica 0 is free."""
    table = RequestTable(np.arange(6) * 1.0, np.full(6, 20), np.full(6, 5))
    for delay_s, expected in ((0.0, [0] * 6), (60.0, [0, 1] * 3)):
        simulation = CompiledSimulation(engine_cluster(late_config(delay_s)), table, "lor")
        simulation.run()
        assert simulation.routing.tolist() == expected


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_refuse_to_see_late(name, table):
    cluster = engine_cluster(late_config(DELAY_S))
    with pytest.raises(UserError, match=f"{name} plans from the cluster as it is"):
        CompiledSimulation(cluster, table, name, ttft_weight=5.0)
