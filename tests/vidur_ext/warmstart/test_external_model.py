"""Which policy files are let in, and the proof that what was let in is what acts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import (
    RoutingPolicy,
    load_policy,
    save_policy,
)
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.warmstart.external_model import (
    PROBES,
    adopt,
    check_model,
    log_same_choices,
    same_choices,
)


def config(**groups: dict[str, object]) -> TrainingConfig:
    network = {"hidden_size": 8, "attention_heads": 2}
    return TrainingConfig.model_validate({"actor_critic_architecture": network, **groups})


def policy(of: TrainingConfig, seed: int = 0) -> RoutingPolicy:
    schema = observation_schema(of.observation)
    made = RoutingPolicy(schema, of.actor_critic_architecture, of.observation.clip)
    made.initialize(seed)
    rng = np.random.default_rng(seed)
    made.collect(
        Observation(
            rng.normal(size=(50, 4, len(schema.replica))),
            rng.normal(size=(50, len(schema.context))),
            np.zeros((50, 0)),
        )
    )
    for weight in made.network.parameters():
        weight.data.add_(0.3 * torch.from_numpy(rng.normal(size=weight.shape)).float())
    return made


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "mein Modell äöü.pt"
    save_policy(policy(config()), path)
    return path


def test_a_fitting_policy_is_described(model):
    report = check_model(model, config())
    made = policy(config())
    assert report.path == model
    assert report.size_bytes == model.stat().st_size
    assert report.parameters == sum(w.numel() for w in made.network.parameters())
    assert report.schema == made.schema.digest()
    assert report.states_seen == 200
    assert report.architecture["hidden_size"] == 8


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"observation": {"queue_slots": 0}}, "sees other features"),
        ({"observation": {"clip": 5.0}}, "observation.clip=10.0"),
        (
            {"actor_critic_architecture": {"hidden_size": 16, "attention_heads": 2}},
            "hidden_size is 8 in the file and 16 here",
        ),
    ],
)
def test_a_policy_for_another_config_is_refused(model, groups, message):
    with pytest.raises(UserError, match=message):
        check_model(model, config(**groups))


def test_the_number_of_replicas_is_free(model):
    check_model(model, config(cluster={"num_replicas": 9}))


def test_no_file_and_no_policy_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt: no such policy file"):
        check_model(tmp_path / "none.pt", config())
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(UserError, match=r"text\.pt: cannot be read as a policy file"):
        check_model(tmp_path / "text.pt", config())


def _first(state):
    return next(name for name, value in state["network"].items() if value.ndim == 2)


def _without_weight(state):
    del state["network"][_first(state)]


def _with_stranger(state):
    state["network"]["stranger"] = torch.zeros(1)


def _reshaped(state):
    state["network"][_first(state)] = torch.zeros(3, 3)


def _with_nan(state):
    state["network"][_first(state)][0, 0] = float("nan")


def _with_text(state):
    state["network"][_first(state)] = "text"


def _short_statistics(state):
    state["context_statistics"]["mean"] = torch.zeros(1, dtype=torch.float64)


def _infinite_statistics(state):
    state["replica_statistics"]["squares"][0] = float("inf")


def _unseen(state):
    state["replica_statistics"]["count"] = 0


def _without_part(state):
    del state["clip"]


def _odd_part(state):
    state["architecture"] = [1]


def _unknown_activation(state):
    state["architecture"]["activation"] = "exec"


def _negative_variance(state):
    state["replica_statistics"]["squares"][3] = -1.0


def _many_states(state):
    state["replica_statistics"]["count"] = 10**30


def _states_that_are_true(state):
    state["replica_statistics"]["count"] = True


def _whole_means(state):
    state["context_statistics"]["mean"] = state["context_statistics"]["mean"].to(torch.int8)


def _complex_weight(state):
    state["network"][_first(state)] = state["network"][_first(state)].to(torch.complex64)


def _sparse_weight(state):
    state["network"][_first(state)] = state["network"][_first(state)].to_sparse()


def _endless_clip(state):
    state["clip"] = float("inf")


DAMAGES = pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_weight, "lacks network"),
        (_with_stranger, "unknown network.stranger"),
        (_reshaped, r"of shape \[3, 3\], not"),
        (_with_nan, "not finite"),
        (_with_text, "no tensor"),
        (_short_statistics, r"context_statistics.squares of shape \[\d+\], not \[1\]"),
        (_infinite_statistics, "replica_statistics.squares with numbers that are not finite"),
        (_unseen, "have seen no state"),
        (_without_part, "it lacks clip"),
        (_odd_part, r"an unknown network \(architecture: "),
        (_unknown_activation, r"architecture\.activation: Input should be 'tanh', 'relu' or"),
        (_negative_variance, r"replica_statistics\.squares below 0"),
        (_many_states, r"replica_statistics\.count that counts nothing"),
        (_states_that_are_true, r"replica_statistics\.count that counts nothing"),
        (_whole_means, r"context_statistics\.mean of torch\.int8, not torch\.float64"),
        (_complex_weight, "dense"),
        (_sparse_weight, "dense"),
        (_endless_clip, "clip that is no number above 0"),
    ],
)


@DAMAGES
def test_a_damaged_policy_is_refused_and_the_damage_named(tmp_path, damage, message):
    state = copy.deepcopy(policy(config()).state_dict())
    damage(state)
    # Not by ``save_policy_state``, which writes none of these.
    torch.save({"kind": "ppo_scheduler policy", "policy": state}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=message):
        check_model(tmp_path / "bad.pt", config())
    with pytest.raises(UserError, match=message):
        load_policy(tmp_path / "bad.pt", observation_schema(config().observation))


@pytest.mark.parametrize("content", [{}, {"policy": None}, {"policy": {}}, {"policy": [1]}])
def test_a_file_without_a_policy_in_it_is_refused(tmp_path, content):
    torch.save({"kind": "ppo_scheduler policy", **content}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"bad\.pt: is no policy of this version, it lacks schema"):
        check_model(tmp_path / "bad.pt", config())


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_refused_or_acts_as_before(saved, data):
    content, folder = saved
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    file = folder / "damaged.pt"
    file.write_bytes(bytes(damaged))
    schema = observation_schema(config().observation)
    try:
        read = load_policy(file, schema)
    except UserError:
        return
    before = policy(config()).state_dict()
    for name, weight in read.state_dict()["network"].items():
        assert torch.equal(weight, before["network"][name])
    for part in ("replica_statistics", "context_statistics"):
        for name, value in read.state_dict()[part].items():
            assert np.array_equal(value, before[part][name])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_policy(policy(config()), folder / "good.pt")
    return (folder / "good.pt").read_bytes(), folder


def test_an_adopted_policy_chooses_as_the_original(model, tmp_path):
    adopt(model, tmp_path / "run" / "pretrained_actor.pt", config())
    schema = observation_schema(config().observation)
    copied = load_policy(tmp_path / "run" / "pretrained_actor.pt", schema)
    assert same_choices(load_policy(model, schema), copied, 4) == PROBES


def test_probes_tell_policies_apart_by_weights_and_by_statistics():
    one, other = policy(config(), 0), policy(config(), 1)
    assert same_choices(one, one, 4) == PROBES
    assert same_choices(one, other, 4) < PROBES
    moved = policy(config(), 0)
    moved.replica_statistics.update(np.full((50, len(moved.schema.replica)), 3.0))
    assert same_choices(one, moved, 4) < PROBES


def test_a_policy_that_acts_differently_after_loading_is_an_error(model):
    with pytest.raises(UserError, match=r"chooses differently in \d+ of 512"):
        log_same_choices(model, policy(config(), 1), 4)
