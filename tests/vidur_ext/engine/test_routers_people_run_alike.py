"""The routers that people run route alike on both engines, by texts, sessions and what they are
told."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.config.sections import PREFIX_ROUTERS, SESSION_ROUTERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.routing.view import Arriving
from vidur_ext.vidur.engine_inputs import cluster_of, engine_cluster
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config
from vidur_ext.vidur.simulation import VidurSimulation, simulation_of
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import Sessions

REQUESTS, TURNS = 60, 4
RULES = sorted({*PREFIX_ROUTERS, *SESSION_ROUTERS})
CLUSTER = {"num_replicas": 3, "replica_scheduler": "vllm_v1", "num_blocks": 400}


def chats() -> RequestTable:
    """Return sessions of four turns, each of which goes on after the answer to the one before."""
    rng = np.random.default_rng(3)
    session = np.arange(REQUESTS) % (REQUESTS // TURNS)
    answers = rng.integers(20, 60, REQUESTS)
    rows: list[list[tuple[int, int]]] = []
    for request in range(REQUESTS):
        before = request - REQUESTS // TURNS
        past = [(session[request] % 2, 64)]
        if before >= 0:
            past = [*rows[before], (2000 + before, int(answers[before]))]
        rows.append([*past, (1000 + request, int(rng.integers(30, 120)))])
    prompts = Prompts.of(rows, [2000 + request for request in range(REQUESTS)])
    nobody, no_time = np.full(REQUESTS, -1), np.zeros(REQUESTS)
    sessions = Sessions(session, np.arange(REQUESTS) // (REQUESTS // TURNS), nobody, no_time)
    arrived = np.cumsum(rng.exponential(0.02, REQUESTS))
    return RequestTable(arrived, prompts.lengths, answers, prompts, sessions)


def config(**groups) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "cluster": CLUSTER,
            "observation": {"prefix_knowledge": "exact"},
            "evaluation": {"enabled": False},
            "workload": {"max_tokens": 1024},
            **groups,
        }
    )


def routed(engine: str, rule: str, config: TrainingConfig, table: RequestTable) -> list[int]:
    if engine == "vidur":
        simulation = simulation_of(config, rule, table)
    else:
        simulation = CompiledSimulation(engine_cluster(config), table, rule)
    simulation.run()
    return simulation.routing.tolist()


@pytest.mark.parametrize("rule", RULES)
def test_both_engines_route_alike(rule):
    table = chats()
    chosen = routed("compiled", rule, config(), table)
    assert chosen == routed("vidur", rule, config(), table)
    assert len(set(chosen)) > 1


@pytest.mark.parametrize("engine", ["vidur", "compiled"])
def test_sessions_stay_together_if_only_they_count(engine):
    table = chats()
    chosen = np.array(routed(engine, "session_hash", config(), table))
    assert table.sessions is not None
    replicas = [set(chosen[table.sessions.session == session]) for session in range(15)]
    assert all(len(own) == 1 for own in replicas)
    assert len(set.union(*replicas)) == 3


def test_both_engines_show_whose_a_request_is(sights):
    """All requests go to replica 0."""
    table = chats()
    for seen in (sights["vidur"](config(), table), sights["compiled"](config(), table)):
        requests = [sight[3] for sight in seen]
        assert [int(request[Arriving.SESSION]) for request in requests] == [*range(15)] * 4
        replicas = [int(request[Arriving.SESSION_REPLICA]) for request in requests]
        assert replicas == [-1] * 15 + [0] * 45


TOLERANT = {"routers": {"sticky_uncached": {"tolerance": 1000.0}}}
STRICT = {"routers": {"sticky_uncached": {"tolerance": 1.0}}}


@pytest.mark.parametrize("engine", ["vidur", "compiled"])
def test_what_a_rule_is_told_reaches_it(engine):
    table = chats()
    chosen = np.array(routed(engine, "sticky_uncached", config(**TOLERANT), table))
    assert (chosen[15:] == chosen[:-15]).all(), "every session stays where it began"
    chosen = np.array(routed(engine, "sticky_uncached", config(**STRICT), table))
    assert (chosen[15:] != chosen[:-15]).any(), "some other replica has less to compute"


def test_flags_tell_both_engines_the_same(tmp_path):
    flags = cli_flags(config(**TOLERANT), "sticky_uncached", metrics_dir=str(tmp_path))
    assert "--sticky_uncached_global_scheduler_config_tolerance=1000.0" in flags
    parsed, table = parse_simulation_config(flags), chats()
    theirs = VidurSimulation(parsed, table)
    theirs.run()
    ours = CompiledSimulation(cluster_of(parsed), table, "sticky_uncached", seed=parsed.seed)
    ours.run()
    assert theirs.routing.tolist() == ours.routing.tolist()
    assert (ours.routing[15:] == ours.routing[:-15]).all()
