"""Priced decisions: whose they are, where they come from, and that a seed says it all."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.routing.features import observation_schema
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.warmstart.cost_labels import CostLabels
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.workload.run_workloads import demonstration_table

EVERY_DECISION = {"label_share": 1.0, "random_share": 0.0, "labels_per_round": 80}


@pytest.fixture
def priced(make_config):
    """Collect a round; the keys of ``warmstart`` are given by name."""

    def collect(
        number: int = 0,
        policy: RoutingPolicy | None = None,
        *,
        num_envs: int = 2,
        seed: int = 0,
        **keys: object,
    ) -> Demonstrations:
        config = make_config(
            training={"seed": seed},
            parallel_training={"num_envs": num_envs},
            warmstart={**EVERY_DECISION, **keys},
        )
        return CostLabels(config).collect(number, policy)

    return collect


@pytest.fixture
def policy(priced, make_config) -> RoutingPolicy:
    """A policy with weights of its own: it prefers other replicas than look-ahead does."""
    config: TrainingConfig = make_config()
    architecture = config.actor_critic_architecture
    made = RoutingPolicy(observation_schema(config.observation), architecture, 10.0)
    made.initialize(5)
    made.collect(priced().observation())
    rng = np.random.default_rng(5)
    for weight in made.network.parameters():
        weight.data += 0.5 * weight.new_tensor(rng.normal(size=weight.shape))
    return made


def prompts(data: Demonstrations) -> list[int]:
    """Return the arriving requests' prompt tokens, by which they can be recognised."""
    logs = data.context[:, data.context_features.index("log_prompt")].astype(np.float64)
    return np.rint(np.exp(logs)).astype(int).tolist()


def same(one: Demonstrations, other: Demonstrations) -> bool:
    names = ("replicas", "context", "action", "load_level", "costs")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_look_ahead_routes_where_there_is_no_policy(priced):
    data = priced()
    assert len(data) == 80
    assert data.teachers == ("lookahead",)
    np.testing.assert_array_equal(data.action, data.costs.argmin(axis=1))
    assert len(set(data.action)) == 3


def test_costs_are_those_of_look_ahead_at_the_states_where_the_policy_goes(
    priced, policy, make_config
):
    """The same requests are routed once more, by hand, and every choice is asked for."""
    data = priced(1, policy)
    config = make_config(warmstart=EVERY_DECISION)
    tables = [demonstration_table(config, index, 40, 1.0) for index in (2, 3)]
    envs = RoutingEnvironments(engine_cluster(config), config, 2)
    envs.begin(tables)
    replicas, costs, actions = [], [], []
    while envs.waiting:
        replicas.append(envs.observation.replicas)
        costs.append(envs.costs(np.ones(2, dtype=np.bool_)))
        actions.append(policy.greedy(envs.observation))
        envs.step(actions[-1])
    in_order = [np.concatenate(np.stack(rows, axis=1)) for rows in (replicas, costs, actions)]
    np.testing.assert_array_equal(data.replicas, in_order[0].astype(np.float32))
    np.testing.assert_array_equal(data.costs, in_order[1].astype(np.float32))
    np.testing.assert_array_equal(data.action, in_order[2])
    assert (data.action != data.costs.argmin(axis=1)).any(), "the policy goes its own way"


def test_a_seed_says_all_and_another_one_says_something_else(priced):
    half = {"label_share": 0.5, "random_share": 0.2}
    assert same(priced(**half), priced(**half))
    assert not same(priced(**half), priced(seed=1, **half))


def test_more_rounds_leave_the_first_one_as_it_is(priced):
    assert same(priced(rounds=1), priced(rounds=7))


def test_every_round_has_requests_of_its_own(priced):
    first, second = prompts(priced(0)), prompts(priced(1))
    assert first != second
    assert len(first) == len(second)


def test_what_a_round_shows_of_output_lengths_is_known_in_the_next(make_config, policy):
    config = make_config(warmstart=EVERY_DECISION)
    labels = CostLabels(config)
    labels.collect(0, policy)
    informed, uninformed = labels.collect(1, policy), CostLabels(config).collect(1, policy)
    np.testing.assert_array_equal(informed.replicas, uninformed.replicas)
    assert not np.array_equal(informed.costs, uninformed.costs)


@pytest.mark.shows("warmstart.labels_per_round")
@pytest.mark.parametrize("labels_per_round", [16, 64])
def test_as_many_decisions_are_priced_as_were_asked_for(priced, labels_per_round):
    assert len(priced(labels_per_round=labels_per_round)) == labels_per_round


@pytest.mark.shows("warmstart.label_share")
def test_a_share_of_the_decisions_is_labelled_in_a_simulation_that_is_longer_for_it(
    priced, make_config
):
    data = priced(num_envs=1, label_share=0.25)
    assert 60 <= len(data) <= 100  # a binomial of 320 decisions: 80, deviation 8
    arrived = demonstration_table(make_config(), 0, 320, 1.0).prefill_tokens.tolist()
    left = iter(arrived)
    assert all(prompt in left for prompt in prompts(data)), "in the order of their arrival"
    whole = priced(num_envs=1)
    assert prompts(whole) == arrived[:80]
    assert prompts(data) != prompts(whole)[: len(data)]


@pytest.mark.shows("warmstart.random_share")
def test_a_share_of_the_decisions_is_routed_at_random(priced):
    shares = [
        (data.action == data.costs.argmin(axis=1)).mean()
        for data in (priced(labels_per_round=300, random_share=share) for share in (0.0, 0.5, 1.0))
    ]
    # Of three replicas a random choice is the best one in a third of all cases.
    assert shares == pytest.approx([1.0, 0.5 + 0.5 / 3, 1 / 3], abs=0.08)


def test_simulations_come_one_after_the_other_at_the_load_levels_in_turn(priced):
    data = priced(num_envs=4, load_levels=[0.5, 1.5])
    changes = np.flatnonzero(np.diff(data.load_level)) + 1
    assert changes.tolist() == [20, 40, 60]
    assert data.load_level[[0, 20, 40, 60]].tolist() == [0.5, 1.5, 0.5, 1.5]
    queued = data.replicas[:, :, data.replica_features.index("outstanding")].sum(axis=1)
    assert queued[data.load_level == 1.5].mean() > queued[data.load_level == 0.5].mean()
