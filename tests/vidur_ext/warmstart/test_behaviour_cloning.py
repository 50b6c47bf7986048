"""Demonstration files and the cloned policy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.policy.routing_policy import load_policy, read_policy_state, save_policy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.warmstart.behaviour_cloning import clone_behaviour, split_by_teacher
from vidur_ext.warmstart.demonstrations import Demonstrations, concatenate

SCHEMA = ObservationSchema(("load", "noise"), ("size",), ())


def demonstrations(teacher: str = "lightest", rows: int = 600, seed: int = 0) -> Demonstrations:
    """A teacher that takes the replica with the smallest load, or (``fixed``) replica 0."""
    rng = np.random.default_rng(seed)
    replicas = rng.random((rows, 3, 2)).astype(np.float32)
    action = replicas[:, :, 0].argmin(axis=1) if teacher == "lightest" else np.zeros(rows, int)
    return Demonstrations(
        SCHEMA.replica,
        SCHEMA.context,
        (teacher,),
        replicas,
        rng.random((rows, 1)).astype(np.float32),
        action.astype(np.int64),
        np.zeros(rows, np.int64),
        np.ones(rows),
        np.zeros((rows, 0), np.float32),
    )


def config(**warmstart: object) -> TrainingConfig:
    keys = {"epochs": 25, "batch_size": 64, "patience": 30, "learning_rate": 3e-3, **warmstart}
    return TrainingConfig.model_validate({"warmstart": {"method": "imitation", **keys}})


def clone(data: Demonstrations, **warmstart: object):
    torch.set_num_threads(1)
    return clone_behaviour(config(**warmstart), SCHEMA, data, lambda epoch: None)


def test_demonstrations_survive_their_file(tmp_path):
    data = demonstrations()
    data.save(tmp_path / "demo.npz")
    loaded = Demonstrations.load(tmp_path / "demo.npz")
    assert loaded.teachers == data.teachers
    for name in ("replicas", "context", "action", "teacher", "load_level", "costs"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(data, name))


def test_demonstration_files_hold_no_pickles(tmp_path):
    demonstrations().save(tmp_path / "demo.npz")
    with np.load(tmp_path / "demo.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 broken"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "demo.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"demo\.npz: not a demonstration file"):
        Demonstrations.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Demonstrations.load(tmp_path / "none.npz")


def test_joined_demonstrations_tell_teachers_apart():
    joined = concatenate([demonstrations("fixed", 20), demonstrations("lightest", 30)])
    assert joined.teachers == ("fixed", "lightest")
    np.testing.assert_array_equal(np.bincount(joined.teacher), [20, 30])


def test_one_teacher_at_two_loads_stays_one_teacher():
    joined = concatenate([demonstrations(seed=1), demonstrations(seed=2)])
    assert joined.teachers == ("lightest",)
    assert len(joined) == 1200


def test_other_features_are_refused_by_name():
    data = dataclasses.replace(demonstrations(), replica_features=("load", "colour"))
    with pytest.raises(UserError, match=r"missing .'noise'., unknown .'colour'."):
        clone(data)


def test_held_out_rows_come_from_every_teacher_and_are_not_trained_on():
    teacher = np.repeat([0, 1], [100, 20])
    train, held = split_by_teacher(teacher, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(teacher[held]), [10, 2])
    assert not set(train) & set(held)
    assert len(train) + len(held) == 120


def test_the_clone_does_what_the_teacher_does():
    result = clone(demonstrations(rows=2000))
    assert result.report.accuracy["lightest"] > 0.95
    fresh = demonstrations(rows=500, seed=9)
    agreement = (result.policy.greedy(fresh.observation()) == fresh.action).mean()
    assert agreement > 0.95


def test_accuracy_is_reported_per_teacher():
    joined = concatenate([demonstrations("fixed", 300), demonstrations("lightest", 300, seed=1)])
    accuracy = clone(joined).report.accuracy
    assert set(accuracy) == {"fixed", "lightest"}


def test_the_policy_survives_its_file_exactly(tmp_path):
    policy = clone(demonstrations(), epochs=2).policy
    save_policy(policy, tmp_path / "policy.pt")
    loaded = load_policy(tmp_path / "policy.pt", SCHEMA)
    observation = demonstrations(seed=5).observation()
    first, _ = policy.evaluate(policy.normalize(observation))
    second, _ = loaded.evaluate(loaded.normalize(observation))
    assert torch.equal(first, second)


def test_a_policy_of_other_features_is_refused(tmp_path):
    save_policy(clone(demonstrations(), epochs=1).policy, tmp_path / "policy.pt")
    other = ObservationSchema(("load", "colour"), ("size",), ())
    with pytest.raises(UserError, match="sees other features"):
        load_policy(tmp_path / "policy.pt", other)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_file_that_is_no_policy_is_refused(tmp_path, content):
    (tmp_path / "policy.pt").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a policy file"):
        read_policy_state(tmp_path / "policy.pt")


@pytest.mark.shows("warmstart.epochs", "warmstart.patience")
def test_epochs_and_patience_end_the_cloning():
    assert len(clone(demonstrations(), epochs=3).history) == 3
    noise = dataclasses.replace(
        demonstrations(), action=np.random.default_rng(0).integers(0, 3, 600)
    )
    stopped = clone(noise, epochs=200, patience=2, learning_rate=1e-2)
    assert len(stopped.history) == stopped.best + 3 < 200


@pytest.mark.shows("warmstart.batch_size", "warmstart.learning_rate", "warmstart.holdout_fraction")
@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", 16), ("learning_rate", 1e-4), ("holdout_fraction", 0.5)]
)
def test_every_key_of_the_cloning_changes_the_result(key, value):
    usual = clone(demonstrations(), epochs=2).history[-1]
    changed = clone(demonstrations(), epochs=2, **{key: value}).history[-1]
    assert usual.holdout_loss != changed.holdout_loss


def test_fine_tuning_begins_with_the_weights_and_statistics_of_the_given_policy():
    data = demonstrations()
    taught = clone(data).policy
    tuned = clone_behaviour(
        config(epochs=1, learning_rate=1e-9), SCHEMA, demonstrations(seed=5), lambda epoch: None,
        initial=taught.state_dict(),
    ).policy  # fmt: skip
    for name in ("replica_statistics", "context_statistics"):
        before, after = taught.state_dict()[name], tuned.state_dict()[name]
        assert repr(before) == repr(after)
    observation = data.observation()
    assert (taught.greedy(observation) == tuned.greedy(observation)).all()
    assert (taught.greedy(observation) == data.action).mean() > 0.8


def test_fine_tuning_learns_the_new_teacher():
    taught = clone(demonstrations()).policy
    data = demonstrations(seed=1)
    heaviest = data.replicas[:, :, 0].argmax(axis=1)
    other = dataclasses.replace(data, action=heaviest.astype(np.int64))
    tuned = clone_behaviour(
        config(), SCHEMA, other, lambda epoch: None, initial=taught.state_dict()
    ).policy
    observation = other.observation()
    assert (taught.greedy(observation) == heaviest).mean() < 0.2
    assert (tuned.greedy(observation) == heaviest).mean() > 0.8
