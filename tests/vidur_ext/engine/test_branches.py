"""Copies of waiting environments go different ways, each as if it had never been a copy."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

HORIZON = 7


KINDS = {
    "sarathi": ("sarathi", {}),
    "vllm": ("vllm", {}),
    "orca": ("orca", {}),
    "late": ("sarathi", {"signal_delay_s": 0.1}),
    "told late": ("vllm_v1", {"prefix_knowledge": "exact", "kv_event_delay_s": 0.1}),
    "remembering": ("vllm_v1", {"prefix_knowledge": "approximate", "prefix_index_blocks": 40}),
}


def with_texts(table):
    """Return the requests with prompts of which every fifth one begins alike."""
    lengths = table.prefill_tokens.tolist()
    rows = [[(request % 5, length)] for request, length in enumerate(lengths)]
    prompts = Prompts.of(rows, [100 + request for request in range(len(rows))])
    return RequestTable(table.arrived_at, table.prefill_tokens, table.decode_tokens, prompts)


@pytest.fixture(params=KINDS)
def open_environments(request, make_config, make_requests):
    """Open environments on one of several clusters, with these numbers of requests."""
    kind, observation = KINDS[request.param]
    config = make_config(
        cluster={"num_replicas": 3, "replica_scheduler": kind, "max_tokens_in_batch": 8192},
        observation=observation,
        evaluation={"enabled": False},
    )

    def opened(count: int, envs: int = 2) -> RoutingEnvironments:
        environments = RoutingEnvironments(engine_cluster(config), config, envs)
        tables = [with_texts(make_requests(60, seed=env, qps=30.0)) for env in range(envs)]
        environments.begin([table.slice(0, count) for table in tables])
        return environments

    return opened


def route(environments, decisions, first=0):
    """Route like a policy: by what is seen, and not always to the same replica."""
    for decision in range(first, first + decisions):
        environments.step(in_turn(environments, decision))


def in_turn(environments, decision):
    load = environments.observation.replicas[..., :2].sum(axis=2)
    return (load.argmin(axis=1) + decision) % environments.num_replicas


def ends(environments):
    return environments.completed_at, environments.prefill_completed_at, environments.routing


def test_a_branch_is_the_simulation_in_which_that_choice_was_made(open_environments):
    trunk = open_environments(60)
    route(trunk, 20)
    choices = np.array([[2, 0], [1, 2]])
    branches = trunk.branches(choices, HORIZON)
    shown = branches.observation.replicas
    route(branches, HORIZON, first=21)
    assert not branches.waiting
    for column in range(2):
        alone = open_environments(21 + HORIZON)
        route(alone, 20)
        alone.step(choices[:, column])
        assert np.array_equal(shown[column::2], alone.observation.replicas)
        route(alone, HORIZON, first=21)
        assert not alone.waiting
        for branched, whole in zip(ends(branches), ends(alone), strict=True):
            assert np.array_equal(branched[column::2], whole)


def test_branches_leave_what_they_branch_from_as_it_was(open_environments):
    trunk, untouched = open_environments(60), open_environments(60)
    for decision in range(60):
        if decision % 10 == 5:
            branches = trunk.branches(np.array([[0, 1, 2], [2, 1, 0]]), HORIZON)
            while branches.waiting:
                branches.step(in_turn(branches, decision))
        for environments in (trunk, untouched):
            environments.step(in_turn(environments, decision))
    assert trunk.trace() == untouched.trace()
    for one, other in zip(ends(trunk), ends(untouched), strict=True):
        assert np.array_equal(one, other)


def test_without_a_horizon_only_the_waiting_request_is_routed(open_environments):
    trunk = open_environments(60)
    route(trunk, 20)
    branches = trunk.branches(np.array([[0, 1, 2], [0, 1, 2]]), horizon=0)
    assert not branches.waiting
    assert branches.routing[:, 20].tolist() == [0, 1, 2, 0, 1, 2]
    assert branches.completed_at.shape == (6, 21)
    assert (branches.completed_at > 0.0).all()


def test_the_end_of_the_requests_is_the_end_of_the_branches(open_environments):
    trunk = open_environments(24)
    route(trunk, 20)
    branches = trunk.branches(np.array([[0], [1]]), HORIZON)
    route(branches, 3, first=21)
    assert not branches.waiting
