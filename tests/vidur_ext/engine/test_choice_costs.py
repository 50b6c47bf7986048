"""What every choice costs: by hand, against real simulations, and whatever else is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidur_ext.config.training_config import RouterConfig, TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.layout import Time, alone
from vidur_ext.engine.planner import Planner
from vidur_ext.vidur.engine_inputs import cluster_of, engine_cluster
from vidur_ext.vidur.simulation import VidurSimulation
from vidur_ext.workload.request_table import RequestTable

SOME = settings(max_examples=6, deadline=None)
WEIGHT = 3.0


class Scout:
    """Routes a case as it is told, and asks what every choice costs."""

    def __init__(self, cluster, table, **more):
        self.simulation = CompiledSimulation(cluster, table, None)
        self._planner = Planner(cluster, 1, len(table), WEIGHT, **more)

    def go_to(self, routing):
        """Route the first requests, and go to the one after them."""
        for replica in routing:
            self.simulation.advance()
            self.simulation.assign(int(replica))
        return self.simulation.advance()

    def costs(self):
        return self._planner.costs(alone(self.simulation._sim), np.array([True]))[0]


def draw_routing(data, case, requests):
    rng = np.random.default_rng(data.draw(st.integers(0, 99), "routing"))
    return rng.integers(0, case.cluster["num_replicas"], requests)


def decision(data, case):
    """Draw a request of the case, and where those before it went."""
    request = data.draw(st.integers(0, len(case.table) - 1), "decision")
    return request, draw_routing(data, case, request)


# By hand: every iteration takes 1 s, whatever is in it, and outputs have 4 tokens on average.
#
# Request 0 came to replica 0 at 0 s and has had its tokens at 1 s and 2 s. At 2.5 s request 1
# arrives. Of request 0 the prior expects 2 + 4 tokens, so alone it would end at 6 s; of request 1
# it expects 4. On replica 0 request 1 begins at 3 s, on replica 1 at once.
#
# sarathi: 700 tokens of prompt are two chunks. First token at 5 s or 4.5 s, last one 3 s later.
# orca: the prompt is one batch, with request 0 in it. First token at 4 s or 3.5 s.
# vllm: the same, but request 0 pauses from 3 s to 4 s and ends at 7 s instead of 6 s.
BY_HAND = {
    "sarathi": [5.5 + 2.5 * WEIGHT, 5.0 + 2.0 * WEIGHT],
    "orca": [4.5 + 1.5 * WEIGHT, 4.0 + 1.0 * WEIGHT],
    "vllm": [1.0 + 4.5 + 1.5 * WEIGHT, 4.0 + 1.0 * WEIGHT],
}


def with_iterations_of(seconds, tables):
    """Return tables by which every iteration takes so long."""
    per_tokens = np.zeros_like(tables.per_tokens)
    per_tokens[..., 0] = 1.0
    return tables._replace(
        per_tokens=per_tokens,
        decode=np.zeros_like(tables.decode),
        prefill=np.zeros_like(tables.prefill),
        num_layers=1000.0 * seconds,
    )


def two_replicas(kind, mean_output=4.0, max_tokens=8192, **more):
    """Return a cluster with iterations of 1 s, on which so long outputs are expected."""
    cluster = {"num_replicas": 2, "replica_scheduler": kind, **more}
    usual = engine_cluster(
        TrainingConfig.model_validate({"cluster": cluster, "workload": {"max_tokens": max_tokens}})
    )
    return usual._replace(
        tables=with_iterations_of(1.0, usual.tables),
        estimates=usual.estimates._replace(output_sum=2.0 * mean_output, output_count=2.0),
    )


def costs_of_second(cluster, prompt, arrived_at=2.5, **more):
    """Return the costs of request 1; request 0 is on replica 0. Both will have 50 tokens."""
    table = RequestTable(np.array([0.0, arrived_at]), np.array([100, prompt]), np.array([50, 50]))
    scout = Scout(cluster, table, **more)
    scout.go_to([0])
    return scout.costs().tolist()


@pytest.mark.parametrize("kind", BY_HAND)
def test_costs_are_those_worked_out_by_hand(kind):
    assert costs_of_second(two_replicas(kind), 700) == BY_HAND[kind]


def test_who_has_said_more_than_the_mean_is_expected_to_go_on():
    """At 6.5 s request 0 has had 6 tokens and is expected to have 10, so vllm's pause delays it."""
    assert costs_of_second(two_replicas("vllm"), 700, arrived_at=6.5) == BY_HAND["vllm"]


def test_nobody_is_expected_to_outgrow_the_cache():
    """Of 20 blocks of 16 tokens one stays free, so 304 hold a prompt of 100 and 204 more."""
    cluster = two_replicas("sarathi", mean_output=1000.0, max_tokens=300, num_blocks=20)
    table = RequestTable(np.zeros(1), np.array([100]), np.array([50]))
    scout = Scout(cluster, table)
    scout.go_to([])
    assert scout.costs().tolist() == [204.0 + WEIGHT, 204.0 + WEIGHT]


def test_the_clairvoyant_knows_how_much_is_to_come():
    """Request 1 has its first token at 4 s or 3.5 s, and the 49 others 49 s later."""
    costs = costs_of_second(two_replicas("sarathi"), 100, clairvoyant=True)
    assert costs == [50.5 + 1.5 * WEIGHT, 50.0 + 1.0 * WEIGHT]


def test_a_planner_of_other_times_believes_them_after_the_running_batch():
    """It ends at 3 s. With 2 s each, request 0 has three more tokens until 9 s in either case.

    Request 1, one chunk, has its first token at 5 s or 4.5 s, and its last one 6 s later.
    """
    cluster = two_replicas("sarathi")
    slower = with_iterations_of(2.0, cluster.tables)
    expected = [8.5 + 2.5 * WEIGHT, 8.0 + 2.0 * WEIGHT]
    assert costs_of_second(cluster, 100, tables=slower) == expected


@SOME
@given(data=st.data())
def test_differences_are_those_of_simulations_run_to_the_end(data, draw_case, vidur_config):
    """Without further arrivals, and with the output lengths that the planner believes in."""
    case = draw_case(data)
    cluster = cluster_of(vidur_config(case, scheduler="ppo_modular"))
    request, routing = decision(data, case)
    scout = Scout(cluster, case.table, clairvoyant=True)
    assert scout.go_to(routing) == request
    costs = scout.costs()
    totals = []
    for replica in range(cluster.num_replicas):
        present = case.table.slice(0, request + 1)
        simulation = CompiledSimulation(
            cluster, present, None, choices=np.array([*routing, replica])
        )
        simulation.run()
        times = simulation.state.times
        totals.append((times[:, Time.COMPLETED] + WEIGHT * times[:, Time.PREFILLED]).sum())
    np.testing.assert_allclose(costs - costs[0], np.array(totals) - totals[0], rtol=1e-9, atol=1e-6)


@SOME
@given(data=st.data())
def test_costs_depend_on_nothing_else_that_is_asked(data, draw_case, vidur_config):
    """To the bit: neither on how many environments there are, nor on the other questions."""
    case = draw_case(data)
    cluster = cluster_of(vidur_config(case, scheduler="ppo_modular"))
    count = max(1, len(case.table) // 3)
    tables = [case.table.slice(i * count, (i + 1) * count) for i in range(3)]
    tables = [table for table in tables if len(table) == count]
    steps = draw_routing(data, case, (count, len(tables)))
    rng = np.random.default_rng(case.seed)
    together, seldom = (RoutingEnvironments(cluster, RouterConfig(), len(tables)) for _ in range(2))
    each = [RoutingEnvironments(cluster, RouterConfig(), 1) for _ in tables]
    together.begin(tables)
    seldom.begin(tables)
    for one, table in zip(each, tables, strict=True):
        one.begin([table])
    for actions in steps:
        costs = together.costs(np.ones(len(tables), dtype=np.bool_))
        apart = np.concatenate([one.costs(np.array([True])) for one in each])
        assert costs.tobytes() == apart.tobytes()
        asked = rng.random(len(tables)) < 0.3
        some = seldom.costs(asked)
        assert some[asked].tobytes() == costs[asked].tobytes()
        assert np.isnan(some[~asked]).all()
        together.step(actions)
        seldom.step(actions)
        for one, action in zip(each, actions, strict=True):
            one.step(np.array([action]))
    lengths = together.lengths()
    assert seldom.lengths().tobytes() == lengths.tobytes()
    assert sum(one.lengths() for one in each).tobytes() == lengths.tobytes()


@SOME
@given(data=st.data(), name=st.sampled_from(["lookahead", "clairvoyant"]))
def test_both_engines_plan_with_the_same_costs(data, name, draw_case, vidur_config, compiled):
    """To the bit, since what the planner reads on Vidur is a simulation of this engine's."""
    case = draw_case(data)
    config = vidur_config(case, scheduler=name)
    with pytest.MonkeyPatch.context() as patch:
        asked = recorded_costs(patch)
        simulation = compiled(config, case.table)
        simulation.run()
        on_engine, asked[:] = list(asked), []
        by_vidur = VidurSimulation(config, case.table)
        by_vidur.run()
    assert len(on_engine) == len(case.table)
    assert np.concatenate(asked).tobytes() == np.concatenate(on_engine).tobytes()
    np.testing.assert_array_equal(by_vidur.routing, simulation.routing)


def recorded_costs(patch):
    """Keep what every planner answers."""
    costs, answers = Planner.costs, []

    def recording(self, sims, asked):
        answers.append(costs(self, sims, asked))
        return answers[-1]

    patch.setattr(Planner, "costs", recording)
    return answers


@SOME
@given(data=st.data())
def test_asking_changes_nothing(data, draw_case, vidur_config):
    case = draw_case(data)
    cluster = cluster_of(vidur_config(case, scheduler="ppo_modular"))
    scout = Scout(cluster, case.table)
    scout.go_to(decision(data, case)[1])
    before = scout.simulation.digest()
    first = scout.costs()
    assert scout.costs().tobytes() == first.tobytes()
    assert scout.simulation.digest() == before


@SOME
@given(data=st.data())
def test_costs_do_not_depend_on_outputs_that_are_still_to_come(data, draw_case, vidur_config):
    """No oracle knowledge."""
    case = draw_case(data)
    cluster = cluster_of(vidur_config(case, scheduler="ppo_modular"))
    _, routing = decision(data, case)

    def costs(table):
        scout = Scout(cluster, table)
        scout.go_to(routing)
        return scout.costs(), scout.simulation.completed_at == 0.0

    known, alive = costs(case.table)
    table = case.table
    longer = replace(table, decode_tokens=table.decode_tokens + np.where(alive, 9, 0))
    assert costs(longer)[0].tobytes() == known.tobytes()
