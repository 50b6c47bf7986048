"""A training that begins with a policy learns what look-ahead leaves out, before PPO begins."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from ppo_scheduler.errors import Interrupted
from ppo_scheduler.policy.routing_policy import RoutingPolicy, save_policy
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.branches import BranchingSimulations
from vidur_ext.warmstart.cost_labels import CostLabels

ENOUGH = {"enabled": True, "decisions": 300, "horizon": 2, "steps": 50}
"""To foresee something."""


def new_policy(config) -> RoutingPolicy:
    policy = RoutingPolicy(
        observation_schema(config.observation),
        config.actor_critic_architecture,
        config.observation.clip,
    )
    policy.initialize(0)
    policy.collect(CostLabels(config).collect(0, None).observation())
    return policy


@pytest.fixture
def actor(make_config, tmp_path):
    """The file of a policy to begin with."""
    path = tmp_path / "actor.pt"
    save_policy(new_policy(make_config()), path)
    return path


@pytest.fixture
def branches_of(make_config):
    """Collect branches; ``keys`` are those of the group terminal_value."""

    def collect(keys=None, **groups):
        config = make_config(terminal_value={"decisions": 16, **(keys or {})}, **groups)
        return BranchingSimulations(config).collect(new_policy(config))

    return collect


def learned(trained) -> object:
    return trained.store.load("latest").tree["learner"]["terminal_value"]


@pytest.mark.shows("terminal_value.enabled")
@pytest.mark.parametrize(
    ("groups", "is_learned"),
    [
        ({}, True),
        ({"terminal_value": {"enabled": False}}, False),
        ({"ppo_config": {"advantage": "gae"}}, False),
        ({"cluster": {"num_replicas": 1}}, False),
    ],
)
def test_it_is_learned_where_choices_are_priced_and_it_is_wanted(
    make_config, train, actor, groups, is_learned
):
    value = {**ENOUGH, **groups.get("terminal_value", {})}
    trained = train(make_config(**{**groups, "terminal_value": value}), pretrained_actor=actor)
    assert (learned(trained) is not None) == is_learned


def test_without_a_policy_to_begin_with_there_is_nothing_to_branch_from(make_config, train):
    assert learned(train(make_config(terminal_value=ENOUGH))) is None


def test_the_log_says_how_much_is_foreseen(make_config, train, actor):
    groups = {"terminal_value": {"enabled": True}, "monitoring": {"log_level": "info"}}
    trained = train(make_config(**groups), pretrained_actor=actor)
    log = (trained.run / "ppo_training.log").read_text()
    assert "simulating 16 decisions with each of 3 choices, and 8 requests" in log
    assert "% of its variance is foreseen" in log


@pytest.mark.shows("kl_regularization.final_coef")
def test_it_needs_a_leash(make_config):
    with pytest.raises(ValidationError, match=r"drifts away from it: set final_coef to 0\.02"):
        make_config(terminal_value={"enabled": True}, kl_regularization={"final_coef": 0.0})


@pytest.mark.shows("terminal_value.decisions")
@pytest.mark.parametrize("decisions", [16, 130])
def test_as_many_decisions_branch_as_were_asked_for(branches_of, decisions):
    assert len(branches_of({"decisions": decisions})) == decisions


@pytest.mark.shows("terminal_value.choices")
def test_so_many_choices_are_gone_through_among_them_the_cheapest(branches_of):
    cluster = {"num_replicas": 6}
    data = branches_of({"choices": 4}, cluster=cluster)
    assert data.choices.shape == data.outcomes.shape == (16, 4)
    assert all(len(set(row)) == 4 for row in data.choices.tolist())
    cheapest = data.costs.argsort(axis=1)[:, :2]
    assert [set(best) <= set(row) for best, row in zip(cheapest, data.choices, strict=True)] == (
        [True] * 16
    )
    assert branches_of({"choices": 9}, cluster=cluster).choices.shape == (16, 6)


@pytest.mark.shows("terminal_value.horizon")
def test_what_comes_later_counts_up_to_the_horizon(branches_of):
    near, far = branches_of({"horizon": 0}), branches_of({"horizon": 8})
    assert np.array_equal(near.choices[0], far.choices[0])
    assert (far.outcomes[0] > near.outcomes[0]).all(), "more requests take longer in sum"


@pytest.mark.shows("terminal_value.steps")
def test_it_is_fitted_in_so_many_steps(make_config, train, actor, tmp_path):
    def value(steps):
        folder = {"checkpoint_dir": str(tmp_path / f"checkpoints_{steps}")}
        groups = {"terminal_value": {**ENOUGH, "steps": steps}, "checkpointing": folder}
        return learned(train(make_config(**groups), f"run_{steps}", pretrained_actor=actor))

    one, other = value(50), value(100)
    assert one["most"] != other["most"]


def test_the_weight_of_first_tokens_counts(branches_of):
    def spread(weight):
        data = branches_of({"decisions": 64}, lookahead={"ttft_weight": weight})
        return (data.outcomes - data.outcomes.mean(axis=1, keepdims=True)).std()

    assert spread(100.0) > 3.0 * spread(0.0)


@pytest.mark.parametrize("step", [1, 57])
def test_a_resumed_training_goes_on_with_it(make_config, train, stop_at, actor, tmp_path, step):
    folder = {"checkpoint_dir": str(tmp_path / "straight_checkpoints")}
    straight = train(
        make_config(terminal_value=ENOUGH, checkpointing=folder), "straight", pretrained_actor=actor
    )
    stop_at(step)
    with pytest.raises(Interrupted):
        train(make_config(terminal_value=ENOUGH), pretrained_actor=actor)
    resumed = train(make_config(terminal_value=ENOUGH), load_checkpoint="latest")
    assert learned(resumed) is not None
    assert resumed.has_weights_of(straight)
    assert resumed.rows == straight.rows


def test_on_another_objective_it_is_learned_anew(make_config, train, stop_at, actor):
    groups = {
        "terminal_value": ENOUGH, "monitoring": {"log_level": "info"}
    }  # fmt: skip
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config(**groups), pretrained_actor=actor)
    other = make_config(**groups, lookahead={"ttft_weight": 3.0})
    log = (train(other, load_checkpoint="latest").run / "ppo_training.log").read_text()
    assert "is learned anew: lookahead.ttft_weight changed" in log
