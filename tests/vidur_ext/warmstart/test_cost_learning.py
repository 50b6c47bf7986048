"""Learning from costs: what the fit finds, what it is judged by, and what each of its keys does."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import ObservationSchema
from vidur_ext.routing.features import observation_schema
from vidur_ext.warmstart.cost_labels import CostLabels
from vidur_ext.warmstart.cost_learning import Lessons, RoundReport, learn_from_costs
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.taught_policy import TaughtPolicy

SCHEMA = ObservationSchema(("load", "noise"), ("size",), ())
FIT = {
    "rounds": 1,
    "steps_per_round": 150,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "entropy_coef": 0.0,
}


def priced(rows: int = 400, seed: int = 0) -> Demonstrations:
    """Three replicas at loads 0, 1 and 2, in any order; a choice costs what its replica holds."""
    rng = np.random.default_rng(seed)
    load = rng.permuted(np.tile([0.0, 1.0, 2.0], (rows, 1)), axis=1)
    return Demonstrations(
        SCHEMA.replica,
        SCHEMA.context,
        ("lookahead",),
        np.stack([load, rng.random((rows, 3))], axis=2).astype(np.float32),
        rng.random((rows, 1)).astype(np.float32),
        load.argmin(axis=1),
        np.zeros(rows, np.int64),
        np.ones(rows),
        (7.0 + load).astype(np.float32),
    )


@pytest.fixture
def learn(make_config):
    """Learn from decisions by hand; the keys of ``warmstart`` are given by name."""

    def run(data: Demonstrations, watch=lambda report: None, initial=None, **keys) -> TaughtPolicy:
        config = make_config(warmstart={**FIT, **keys})
        return learn_from_costs([Lessons(config, data)], SCHEMA, watch, initial=initial)

    return run


def weights(taught: TaughtPolicy) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in taught.policy.network.parameters()])


def entropy_of(taught: TaughtPolicy, data: Demonstrations) -> float:
    logits, _ = taught.policy.evaluate(taught.policy.normalize(data.observation()))
    return float(torch.distributions.Categorical(logits=logits).entropy().mean())


def test_the_policy_learns_to_take_what_costs_least(learn):
    taught = learn(priced())
    fresh = priced(seed=9)
    assert (taught.policy.greedy(fresh.observation()) == fresh.action).all()
    [report] = taught.history
    assert (report.regret, report.agreement) == (0.0, 1.0)


def test_a_report_says_what_choices_cost_more_than_the_best_ones(learn):
    """Costs are 7, 8 and 9: at random one more than the best on average; the worst, 2 more."""
    told: list[RoundReport] = []
    data = priced()
    turned = dataclasses.replace(data, costs=16.0 - data.costs)  # now the fullest costs least
    policy = learn(turned).policy
    taught = learn(data, told.append, policy.state_dict(), steps_per_round=1, learning_rate=1e-9)
    assert told == taught.history
    [report] = told
    assert report == RoundReport(0, 340, 2.0, 1.0, 0.0)
    assert report.describe() == (
        "round 0: 340 priced decisions, held-out regret 2.000 request-seconds "
        "(at random 1.000), 0.0% best choices"
    )


def test_what_all_choices_cost_alike_teaches_nothing(learn):
    """Only differences within a decision mean anything."""
    data = priced()
    dearer = data.costs + np.arange(len(data), dtype=np.float32)[:, None]
    assert torch.equal(
        weights(learn(data)), weights(learn(dataclasses.replace(data, costs=dearer)))
    )


def test_the_last_decisions_are_held_out_and_never_learned_from(learn):
    data = priced()
    costs = data.costs.copy()
    costs[340:] = 16.0 - costs[340:]
    misled = learn(dataclasses.replace(data, costs=costs))
    assert torch.equal(weights(misled), weights(learn(data)))
    assert misled.report.regret == 2.0
    costs = data.costs.copy()
    costs[:340] = 16.0 - costs[:340]
    assert learn(dataclasses.replace(data, costs=costs)).report.regret == 2.0


@pytest.mark.shows("warmstart.holdout_fraction")
@pytest.mark.parametrize(("holdout_fraction", "labels"), [(0.15, 340), (0.5, 200), (0.999, 1)])
def test_the_rest_is_learned_from(learn, holdout_fraction, labels):
    taught = learn(priced(), holdout_fraction=holdout_fraction, steps_per_round=1)
    assert taught.report.labels == labels


@pytest.mark.shows("warmstart.steps_per_round")
def test_more_steps_come_further(learn):
    short, long = (
        learn(priced(), learning_rate=1e-3, steps_per_round=steps_per_round).report.regret
        for steps_per_round in (1, 150)
    )
    assert long < 0.1 < short


@pytest.mark.shows("warmstart.entropy_coef")
def test_an_entropy_bonus_keeps_the_policy_from_being_sure(learn):
    data = priced()
    sure, torn = (
        entropy_of(learn(data, entropy_coef=entropy_coef), data) for entropy_coef in (0.0, 3.0)
    )
    assert sure < 0.1
    assert torn > 0.9  # of log 3 = 1.1


@pytest.mark.shows("warmstart.batch_size", "warmstart.learning_rate")
@pytest.mark.parametrize(("key", "value"), [("batch_size", 16), ("learning_rate", 1e-3)])
def test_every_key_of_the_fit_changes_the_result(learn, key, value):
    few = partial(learn, priced(), steps_per_round=3)
    assert not torch.equal(weights(few()), weights(few(**{key: value})))


def test_decisions_with_other_features_are_refused_by_name(learn):
    with pytest.raises(UserError, match=r"missing .'noise'., unknown .'colour'."):
        learn(dataclasses.replace(priced(), replica_features=("load", "colour")))


def test_a_policy_to_begin_with_keeps_its_statistics_and_a_new_one_takes_the_first_rounds(learn):
    data, other = priced(), dataclasses.replace(priced(), replicas=priced().replicas * 3.0)
    begun = learn(data)
    for taught, told in ((learn(other, initial=begun.policy.state_dict()), data), (begun, data)):
        state = taught.policy.state_dict()["replica_statistics"]
        assert state["count"] == 3 * len(told)
        np.testing.assert_allclose(state["mean"], told.replicas.mean(axis=(0, 1)), rtol=1e-5)
    assert learn(other).policy.state_dict()["replica_statistics"]["mean"][0] == pytest.approx(3.0)


CLUSTER = {
    "parallel_training": {"num_envs": 8},
    "warmstart": {
        "rounds": 3,
        "labels_per_round": 600,
        "steps_per_round": 150,
        "batch_size": 128,
        "learning_rate": 5e-3,
    },
}


@pytest.fixture
def taught_on(make_config):
    """Learn on a small cluster; groups override those of ``CLUSTER``."""

    def run(**warmstart: object) -> TaughtPolicy:
        config = make_config(**{**CLUSTER, "warmstart": {**CLUSTER["warmstart"], **warmstart}})
        first = CostLabels(config).collect(0, None)
        schema = observation_schema(config.observation)
        return learn_from_costs([Lessons(config, first)], schema, lambda report: None)

    return run


def test_on_a_cluster_regret_falls_from_round_to_round_and_far_below_chance(taught_on):
    history = taught_on().history
    assert [report.number for report in history] == [0, 1, 2]
    assert history[0].labels < history[1].labels < history[2].labels
    assert history[-1].regret < history[0].regret < 0.5 * history[0].regret_at_random
    assert history[-1].regret < 0.15 * history[-1].regret_at_random


@pytest.mark.shows("warmstart.rounds")
def test_rounds_are_as_many_as_said_and_the_first_ones_the_same(taught_on):
    short = {"labels_per_round": 100, "steps_per_round": 20}
    one, three = (taught_on(rounds=rounds, **short).history for rounds in (1, 3))
    assert (len(one), len(three)) == (1, 3)
    assert one[0] == three[0]


def test_several_clusters_teach_one_policy(make_config):
    """Each is learned on: its regret falls far below chance, though they have unlike replicas."""
    groups = {**CLUSTER, "warmstart": {**CLUSTER["warmstart"], "rounds": 2}}
    configs = [
        make_config(**groups),
        make_config(**groups, cluster={"num_replicas": 2, "devices": ["h100", "a100"]}),
    ]
    schema = observation_schema(configs[0].observation)

    def cluster(config):
        return Lessons(config, CostLabels(config).collect(0, None))

    def learn_on(*chosen):
        return learn_from_costs([cluster(one) for one in chosen], schema, lambda report: None)

    both = learn_on(*configs)
    assert both.report.labels == sum(learn_on(one).report.labels for one in configs)
    assert both.report.regret < 0.25 * both.report.regret_at_random
    statistics = both.policy.state_dict()["replica_statistics"]
    seen = [cluster(one).first.replicas for one in configs]
    assert statistics["count"] == sum(replicas[..., 0].size for replicas in seen)


def test_equal_seeds_teach_to_the_bit(taught_on):
    short = {"rounds": 2, "labels_per_round": 100, "steps_per_round": 20}
    first, second = taught_on(**short), taught_on(**short)
    assert first.history == second.history
    assert torch.equal(weights(first), weights(second))


def test_look_ahead_routes_the_first_round_and_the_policy_the_others(taught_on, monkeypatch):
    routed = []
    collect = CostLabels.collect

    def listen(self, number, policy):
        data = collect(self, number, policy)
        choices = data.costs.argmin(axis=1) if policy is None else policy.greedy(data.observation())
        routed.append((number, policy is not None, float((choices == data.action).mean())))
        return data

    monkeypatch.setattr(CostLabels, "collect", listen)
    taught_on(labels_per_round=100, steps_per_round=20, random_share=0.0)
    # Between replicas that look alike the last bit of a logit decides: it depends on the batch.
    assert routed == [
        (0, False, 1.0),
        *((number, True, pytest.approx(1, abs=0.1)) for number in (1, 2)),
    ]
