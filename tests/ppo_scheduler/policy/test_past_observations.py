"""What earlier versions saw is less now; a policy's choices, values and moments stay."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.checkpoint.migrations import migrate_tree
from ppo_scheduler.config.learner_sections import ArchitectureSection
from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.observation import Observation, ObservationSchema
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.policy.past_observations import (
    PastObservation,
    migrate_policy,
    migrate_rows,
    migrate_training,
    past_observation,
    present_digest,
)
from ppo_scheduler.policy.routing_policy import (
    RoutingPolicy,
    read_policy_state,
    save_policy_state,
)

GOLDEN = Path(__file__).parents[1] / "checkpoint" / "golden"
STATES, REPLICAS = 10_000, 4
SECOND = "619905f9d6cb224a"
"""The digest of what policies saw by default up to version 3."""
GONE = [
    "pending_prefill", "context", "queue0_age_s", "queue0_processed_tokens",
    "queue0_remaining_tokens", "queue1_processed_tokens", "queue1_remaining_tokens",
]  # fmt: skip


def tree_before(version: int):
    """Return a golden checkpoint in the present layout, but with the features as they were."""
    [path] = (GOLDEN / f"schema_{version}").glob("*.pt")
    tree = torch.load(path, weights_only=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppo_scheduler.checkpoint.migrations.migrate_training", lambda tree: tree)
        return migrate_tree(tree, version)


def policy_of(state) -> RoutingPolicy:
    """Return the policy of a state, whatever its columns are called."""
    replica, context = (len(state[f"{part}_statistics"]["mean"]) for part in ("replica", "context"))
    schema = ObservationSchema(
        tuple(f"r{i}" for i in range(replica)), tuple(f"c{i}" for i in range(context)), ()
    )
    architecture = ArchitectureSection.model_validate(state["architecture"])
    policy = RoutingPolicy(schema, architecture, state["clip"])
    policy.load_state_dict({**state, "schema": schema.digest()})
    return policy


def states_of(policy: RoutingPolicy, past: PastObservation) -> Observation:
    """Return states around those it has seen; copies are copies, and zeros 0."""
    rng = np.random.default_rng(0)

    def around(statistics, *shape: int):
        noise = rng.normal(size=(STATES, *shape, len(statistics.mean)))
        return statistics.mean + 2.0 * statistics.std * noise

    replicas = around(policy.replica_statistics, REPLICAS)
    for gone, original in past.copies:
        replicas[..., gone] = replicas[..., original]
    replicas[..., past.zeros] = 0.0
    return Observation(replicas, around(policy.context_statistics), np.zeros((STATES, 0)))


def assert_same_policy(before, after) -> None:
    past = past_observation(before["schema"])
    old, new = policy_of(before), policy_of(after)
    seen = states_of(old, past)
    left = Observation(seen.replicas[..., past.kept], seen.context, seen.telemetry)
    logits, values = old.evaluate(old.normalize(seen))
    logits_after, values_after = new.evaluate(new.normalize(left))
    assert (logits - logits_after).abs().max() < 1e-5
    assert np.abs(values - values_after).max() < 1e-5 * max(1.0, np.abs(values).max())
    np.testing.assert_array_equal(old.greedy(seen), new.greedy(left))
    assert len(np.unique(old.greedy(seen))) == REPLICAS


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_policy_of_a_checkpoint_chooses_as_before(version):
    before = tree_before(version)["learner"]["policy"]
    assert_same_policy(before, migrate_policy(before))


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_any_weights_choose_as_before(activation):
    state = copy.deepcopy(tree_before(3)["learner"]["policy"])
    architecture = ArchitectureSection(hidden_size=32, attention_layers=1, activation=activation)
    network = ActorCritic(38, 14, architecture)
    network.initialize(torch.Generator().manual_seed(1), orthogonal=False)
    state |= {"architecture": architecture.model_dump(mode="json")}
    state |= {"network": dict(network.state_dict())}
    assert_same_policy(state, migrate_policy(state))


def test_the_columns_that_are_gone():
    past = past_observation(SECOND)
    left = [past.replica[column] for column in past.kept]
    assert len(past.replica) == 38
    assert sorted(set(past.replica) - set(left)) == sorted(GONE)
    pairs = {past.replica[gone]: past.replica[original] for gone, original in past.copies}
    assert pairs == {
        "pending_prefill": "pending_prefill_tokens",
        "context": "context_tokens",
        "queue0_age_s": "oldest_wait_s",
        "queue0_remaining_tokens": "queue0_prompt_tokens",
        "queue1_remaining_tokens": "queue1_prompt_tokens",
    }
    assert present_digest(SECOND) == past.schema != SECOND
    assert present_digest(past.schema) == past.schema


def test_optimizer_and_reference_go_along():
    before = tree_before(2)
    after = migrate_training(before)
    past = past_observation(before["learner"]["policy"]["schema"])
    for name in ("exp_avg", "exp_avg_sq"):
        old = parameters(before, before["learner"]["updater"]["adamw"][name])
        new = parameters(after, after["learner"]["updater"]["adamw"][name])
        assert old["replica_input.weight"].any()
        assert torch.equal(new["replica_input.weight"], old["replica_input.weight"][:, past.kept])
        assert all(
            torch.equal(new[part], old[part]) for part in old if part != "replica_input.weight"
        )
    reference = [
        {**tree["learner"]["policy"], "network": parameters(tree, updater["reference"])}
        for tree in (before, after)
        for updater in [tree["learner"]["updater"]]
    ]
    assert_same_policy(*reference)


def parameters(tree, flat):
    """Return a tensor of all parameters by the names of the network."""
    network = tree["learner"]["policy"]["network"]
    parts = flat.split([weight.numel() for weight in network.values()])
    named = zip(network.items(), parts, strict=True)
    return {name: part.view_as(weight) for (name, weight), part in named}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_rollout_loses_the_same_columns(version):
    before = tree_before(version)
    after = migrate_training(before)
    past = past_observation(before["learner"]["policy"]["schema"])
    for old, new in (
        (before["rollout"]["pending"], after["rollout"]["pending"]),
        (before["rollout"]["buffer"]["rows"], after["rollout"]["buffer"]["rows"]),
    ):
        assert torch.equal(new["replicas"], old["replicas"][..., past.kept])
        for gone, original in past.copies:
            assert torch.equal(old["replicas"][..., gone], old["replicas"][..., original])
        assert torch.equal(new["context"], old["context"])


def test_what_fits_already_stays_as_it_is():
    tree = migrate_training(tree_before(3))
    assert migrate_training(tree) is tree
    assert migrate_policy(tree["learner"]["policy"]) is tree["learner"]["policy"]
    assert migrate_policy({"other": 1}) == {"other": 1}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (13, "pending_prefill should always equal pending_prefill_tokens"),
        (30, "queue0_age_s should always equal oldest_wait_s"),
        (32, "queue0_processed_tokens should always be 0"),
    ],
)
@pytest.mark.parametrize("statistic", ["mean", "squares"])
def test_a_policy_whose_columns_were_others_is_refused(tmp_path, column, message, statistic):
    state = copy.deepcopy(tree_before(3)["learner"]["policy"])
    state["replica_statistics"][statistic][column] += 1000.0
    with pytest.raises(IncompatibleState, match=message):
        migrate_policy(state)
    path = tmp_path / "policy.pt"
    save_policy_state(state, path)
    with pytest.raises(UserError, match=rf"policy\.pt: .*{message}"):
        read_policy_state(path)


def test_a_policy_file_is_migrated_and_stays_as_it_is(tmp_path):
    before = tree_before(2)["learner"]["policy"]
    path = tmp_path / "policy.pt"
    save_policy_state(before, path)
    content = path.read_bytes()
    assert_same_policy(before, read_policy_state(path))
    assert path.read_bytes() == content


def rows_of(past: PastObservation):
    rows = np.random.default_rng(0).normal(size=(6, 2, len(past.replica))).astype(np.float32)
    for gone, original in past.copies:
        rows[..., gone] = rows[..., original]
    rows[..., past.zeros] = 0.0
    return rows


def test_recorded_rows_keep_what_is_left():
    past = past_observation(SECOND)
    rows = rows_of(past)
    names, left = migrate_rows(past.replica, rows)
    assert names == tuple(past.replica[column] for column in past.kept)
    np.testing.assert_array_equal(left, rows[..., past.kept])
    again, same = migrate_rows(names, left)
    assert again == names
    np.testing.assert_array_equal(same, left)


@pytest.mark.parametrize("column", [14, 33, 36])
def test_recorded_rows_whose_columns_were_others_are_refused(column):
    past = past_observation(SECOND)
    rows = rows_of(past)
    rows[3, 1, column] += 1.0
    with pytest.raises(IncompatibleState, match=f"{past.replica[column]} should always"):
        migrate_rows(past.replica, rows)
