"""What a router knows of the replicas' prefix caches, worked out by hand, on either engine.

All requests go to replica 0, which serves one at a time; blocks hold 16 tokens. A's prompt of 100
tokens fills 6 of them, prompt and answer together fill 7.
"""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.sections import PLANNERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.layout import Request
from vidur_ext.routing.view import Predicted, Quantity
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.vidur.simulation import simulation_of
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

BLOCK = 16
TEXTS = {
    "A": [(1, 100)],
    "B": [(1, 100)],
    "C": [(1, 64)],
    "D": [(1, 100), (101, 20), (2, 10)],  # 101 is A's answer
    "E": [(3, 50)],
    "F": [(1, 33)],
    "G": [(1, 100)],
}
ARRIVED = [0.0, 1e-6, 2e-6, 10.0, 10.0 + 1e-6, 10.0 + 2e-6, 10.0 + 3e-6]
OUTPUTS = [20, 5, 5, 7, 5, 5, 5]
"""A runs when B and C come; all three are served long before D; D runs when E, F and G come."""


def config(**observation):
    return TrainingConfig.model_validate(
        {
            "cluster": {
                "num_replicas": 2,
                "replica_scheduler": "vllm_v1",
                "batch_size_cap": 1,
                "block_size": BLOCK,
                "num_blocks": 200,
            },
            "observation": observation,
            "evaluation": {"enabled": False},
        }
    )


def requests(texts, arrived, outputs):
    names = [101 + request for request in range(len(texts))]
    prompts = Prompts.of(texts, names)
    return RequestTable(np.array(arrived), prompts.lengths, np.array(outputs), prompts)


ALL = requests(list(TEXTS.values()), ARRIVED, OUTPUTS)


@pytest.fixture(params=["vidur", "compiled"])
def numbers(request, sights):
    """Return, for replica 0, what a number is at every decision."""

    def of(observation, table=ALL):
        seen = sights[request.param](config(**observation), table)
        assert not any(sight[4][Predicted.FOUND_TOKENS, 1] for sight in seen), "it never got any"
        found = [sight[4][Predicted.FOUND_TOKENS, 0] for sight in seen]
        quantities = np.array([sight[0][:, 0] for sight in seen])
        return found, quantities[:, Quantity.UNCACHED_PREFILL_TOKENS].tolist(), quantities

    return of


def test_who_knows_nothing_expects_nothing(numbers):
    found, uncached, quantities = numbers({})
    assert found == [0] * 7
    assert uncached == quantities[:, Quantity.PENDING_PREFILL_TOKENS].tolist()
    assert uncached == [0, 100, 200, 0, 18, 68, 101]


@pytest.mark.shows("observation.prefix_knowledge")
def test_replicas_report_what_they_hold(numbers):
    """Blocks are there from the step on that fills them, the answer's too, but for its last token.

    All tokens but one can be found: of C's four blocks three.
    """
    found, uncached, quantities = numbers({"prefix_knowledge": "exact"})
    assert found == [0, 96, 48, 112, 0, 32, 96]
    # A is computed when B waits, and of B 96 tokens are expected when C comes. D has found its 112
    # tokens when E comes; before G there wait E and F, of which 0 and 32 are expected.
    assert uncached == [0, 100, 200 - 96, 0, 130 - 112, 18 + 50, 18 + 50 + 33 - 32]
    pending = [0, 100, 200, 0, 18, 68, 101]
    assert quantities[:, Quantity.PENDING_PREFILL_TOKENS].tolist() == pending


@pytest.mark.parametrize("engine", ["vidur", "compiled"])
@pytest.mark.parametrize(
    ("observation", "in_use"),
    [
        # A runs when B and C come. Nobody runs when D comes, whose 112 tokens F and G share.
        ({"prefix_knowledge": "exact"}, [0, 96, 48, 0, 0, 32, 96]),
        # B and C see a replica without any text, and all after them one that nobody uses.
        ({"prefix_knowledge": "exact", "kv_event_delay_s": 1.0}, [0] * 7),
        ({"prefix_knowledge": "approximate"}, [0] * 7),
        ({}, [0] * 7),
    ],
)
def test_of_what_is_found_running_requests_use_their_own(sights, engine, observation, in_use):
    seen = sights[engine](config(**observation), ALL)
    assert [sight[4][Predicted.FOUND_IN_USE_TOKENS, 0] for sight in seen] == in_use


def test_an_index_of_its_own_knows_prompts_alone_and_at_once(numbers):
    """It does not know A's answer, with which D goes on."""
    found, uncached, _ = numbers({"prefix_knowledge": "approximate"})
    assert found == [0, 96, 48, 96, 0, 32, 96]
    assert uncached == [0, 100, 104, 0, 18, 68, 69]


@pytest.mark.shows("observation.prefix_index_blocks")
def test_an_index_forgets_what_was_sent_longest_ago_the_end_of_a_text_first(numbers):
    """Of D's 8 blocks 7 have room; E's 3 drive out the last ones of these, of which G finds 4."""
    assert numbers({"prefix_knowledge": "approximate", "prefix_index_blocks": 7})[0] == [
        0, 96, 48, 96, 0, 32, 64,
    ]  # fmt: skip
    # A single block is the beginning of whatever was sent last: C finds B's, D C's, G F's.
    assert numbers({"prefix_knowledge": "approximate", "prefix_index_blocks": 1})[0] == [
        0, 16, 16, 16, 0, 0, 16,
    ]  # fmt: skip


@pytest.mark.shows("observation.kv_event_delay_s")
def test_what_replicas_report_may_come_late(numbers):
    """B and C see nothing yet, D and those after it what there was nine seconds after A."""
    found, uncached, _ = numbers({"prefix_knowledge": "exact", "kv_event_delay_s": 1.0})
    assert found == [0, 0, 0, 112, 0, 32, 96]
    assert uncached == [0, 100, 200, 0, 18, 68, 69]


def test_of_an_instant_nothing_is_reported_that_happens_in_it(numbers):
    late = {"prefix_knowledge": "exact", "kv_event_delay_s": 1.0}
    table = requests([TEXTS["A"]] * 3, [0.0, 1.0, 1.0 + 1e-6], [20] * 3)
    assert numbers(late, table)[0] == [0, 0, 96]


@pytest.mark.parametrize("kv_event_delay_s", [0.0, 0.5, 1.0, 2.0])
def test_late_signals_count_what_was_dispatched_since_less_what_was_expected(
    numbers, kv_event_delay_s
):
    """C sees no replica that has begun anything, and knows of B what it expected of it."""
    observation = {
        "prefix_knowledge": "exact",
        "signal_delay_s": 1.0,
        "kv_event_delay_s": kv_event_delay_s,
    }
    expected_of_b = 0 if kv_event_delay_s else 96
    found, uncached, quantities = numbers(observation)
    assert found[:3] == [0, expected_of_b, 0 if kv_event_delay_s else 48]
    assert uncached[:3] == [0, 100, 200 - expected_of_b]
    assert quantities[2, Quantity.WAITING] == 2


def test_late_signals_and_late_reports_are_each_as_late_as_they_are(numbers):
    """At 10 s D sees the caches of 5 s, and with G the signals of a second ago: D has not come."""
    observation = {"prefix_knowledge": "exact", "signal_delay_s": 1.0, "kv_event_delay_s": 5.0}
    found, uncached, _ = numbers(observation)
    assert found[3:] == [112, 0, 32, 96]
    assert uncached[3:] == [0, 18, 18 + 50, 18 + 50 + 1]


LONG = [(1, 1600)]


def routing(engine, rule, of, table):
    if engine == "vidur":
        simulation = simulation_of(of, rule, table)
    else:
        weight = of.lookahead.ttft_weight
        simulation = CompiledSimulation(engine_cluster(of), table, rule, ttft_weight=weight)
    simulation.run()
    return simulation.routing.tolist()


@pytest.mark.parametrize("engine", ["vidur", "compiled"])
@pytest.mark.parametrize("known", ["none", "exact", "approximate"])
def test_who_predicts_latencies_goes_where_the_prefix_lies(engine, known):
    """Both replicas are idle when one of ten equal prompts comes: without knowledge they tie."""
    table = requests([LONG] * 10, np.arange(10) * 5.0, [5] * 10)
    chosen = routing(engine, "min_predicted_latency", config(prefix_knowledge=known), table)
    assert (len(set(chosen)) == 1) == (known != "none")


@pytest.mark.parametrize("engine", ["vidur", "compiled"])
def test_look_ahead_finds_the_prefix_in_the_cache_that_it_copies(engine):
    """It needs to be told nothing; the prefixes lie on either replica."""
    texts = [LONG, [(2, 1600)]] * 5
    table = requests(texts, np.arange(10) // 2 * 5.0 + np.arange(10) % 2 * 1e-3, [5] * 10)
    chosen = routing(engine, "lookahead", config(), table)
    assert set(chosen[:2]) == {0, 1}
    assert chosen == chosen[:2] * 5


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_refuse_late_reports(name):
    cluster = engine_cluster(config(prefix_knowledge="exact", kv_event_delay_s=0.5))
    with pytest.raises(
        UserError, match=rf"{name} plans from .* observation\.kv_event_delay_s to 0"
    ):
        CompiledSimulation(cluster, ALL, name, ttft_weight=5.0)


@pytest.mark.parametrize("seed", range(3))
def test_to_look_changes_nothing(seed):
    """Blocks are so scarce that requests are preempted and texts are lost."""
    rng = np.random.default_rng(seed)
    texts = [[(int(rng.integers(3)), int(rng.integers(1, 90))), (10 + i, 9)] for i in range(60)]
    table = requests(texts, np.cumsum(rng.exponential(0.02, 60)), rng.integers(1, 60, 60))
    choices, ends = rng.integers(0, 2, 60), []
    for known in ("none", "exact", "approximate"):
        tight = config(prefix_knowledge=known).model_dump()
        tight["cluster"] |= {"num_blocks": 14, "batch_size_cap": 8}
        tight["workload"]["max_tokens"] = 200
        of = TrainingConfig.model_validate(tight)
        envs = RoutingEnvironments(engine_cluster(of), of, 1)
        envs.begin([table])
        for replica in choices:
            envs.step(np.array([replica]))
        assert envs._envs.sims.state.requests[0, :, Request.RESTARTS].any()
        ends.append(envs.completed_at)
    assert np.array_equal(ends[0], ends[1])
    assert np.array_equal(ends[0], ends[2])
