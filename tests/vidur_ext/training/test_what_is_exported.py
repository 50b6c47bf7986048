"""A training ends with the best policy that was validated, and says which it is and why."""

from __future__ import annotations

import pytest
import torch

from ppo_scheduler.errors import Interrupted
from ppo_scheduler.policy.routing_policy import RoutingPolicy, load_policy
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.validation import Candidates, Score, Validation, changes_scores

OFTEN = {"validation_freq": 1, "validation_requests": 256}
RUINOUS = {"learning_rate": 1.0, "entropy_coef_initial": 1e6, "target_kl": None}
"""Far too large steps, to where all choices are alike: every policy is a bad one."""


@pytest.fixture
def make(make_config):
    """Make the config of a training that is validated after every update."""

    def with_validations(saving: dict[str, object] | None = None, **groups: dict[str, object]):
        return make_config(checkpointing={**OFTEN, **(saving or {})}, **groups)

    return with_validations


@pytest.fixture
def warm_start(make_config, train, tmp_path):
    """The file of a good policy, which another training has left."""
    before = make_config(
        training={"total_requests": 1600},
        parallel_training={"num_envs": 4},
        ppo_config={
            "rollout_len": 40, "counterfactual_share": 1.0, "learning_rate": 1e-2, "target_kl": None
        },
        checkpointing={"checkpoint_dir": str(tmp_path / "before"), "validation_freq": None},
    )  # fmt: skip
    return train(before, "before").run / "policy.pt"


def weights_of(path):
    return torch.load(path, weights_only=True)["policy"]["network"]


def is_policy_of(trained, path) -> bool:
    exported = weights_of(trained.run / "policy.pt")
    return all(torch.equal(weight, exported[name]) for name, weight in weights_of(path).items())


def test_warm_start_validated_policies_and_the_last_one_are_candidates(make, train, warm_start):
    trained = train(make({"validation_freq": 3}), pretrained_actor=warm_start)
    scores = trained.validation["scores"]
    assert [score["updates"] for score in scores] == [0, 3, 6, 7]
    assert scores[0]["name"] == "the warm start"
    assert scores[1]["name"] == f"step {scores[1]['global_step']}"


def test_the_best_of_them_is_exported(make, train, warm_start):
    config = make()
    trained = train(config, pretrained_actor=warm_start)
    told = trained.validation
    assert told["chosen"] == min(told["scores"], key=lambda score: score["objective_s"])
    policy = load_policy(trained.run / "policy.pt", observation_schema(config.observation))
    again = Validation(config).score(policy, 0, 0)
    assert again.objective_s(told["ttft_weight"]) == told["chosen"]["objective_s"]


def test_a_training_that_gets_worse_ends_with_its_warm_start(make, train, warm_start):
    config = make(ppo_config=RUINOUS, monitoring={"log_level": "info"})
    trained = train(config, pretrained_actor=warm_start)
    first, *others = trained.validation["scores"]
    assert min(score["objective_s"] for score in others) > first["objective_s"]
    assert trained.validation["chosen"] == first
    assert is_policy_of(trained, warm_start)
    assert "is that of the warm start, the best of 8 validated" in trained.log


def test_it_does_so_behind_a_resume_too(make, train, stop_at, warm_start, tmp_path):
    config = make(ppo_config=RUINOUS)
    straight = train(
        make({"checkpoint_dir": str(tmp_path / "straight")}, ppo_config=RUINOUS),
        "straight",
        pretrained_actor=warm_start,
    )
    stop_at(150)
    with pytest.raises(Interrupted):
        train(config, pretrained_actor=warm_start)
    resumed = train(config, load_checkpoint="latest")
    assert resumed.validation == straight.validation
    assert resumed.has_weights_of(straight)
    assert is_policy_of(resumed, warm_start)


def test_the_warm_start_is_scored_once_if_the_start_is_resumed(make, train, warm_start, tmp_path):
    keep = {"checkpoint_on_start": True, "max_checkpoints": None}
    straight = train(make(keep), pretrained_actor=warm_start)
    again = make(
        {
            "checkpoint_on_start": True,
            "checkpoint_dir": str(tmp_path / "again"),
            "resume_from_checkpoint": str(straight.infos[0].path),
        }
    )
    resumed = train(again, "again")
    assert resumed.validation == straight.validation
    assert resumed.rows == straight.rows


def test_of_a_chunk_the_best_so_far_is_exported(make, train):
    chunk = train(make(), stop_at_requests=150)
    told = chunk.validation
    assert told["chosen"] == min(told["scores"], key=lambda score: score["objective_s"])
    assert chunk.validation["scores"][-1]["global_step"] < 150


@pytest.mark.shows("checkpointing.validation_freq")
def test_with_validation_freq_null_the_last_policy_is_exported(make, train, warm_start):
    trained = train(
        make({"validation_freq": None}, ppo_config=RUINOUS), pretrained_actor=warm_start
    )
    assert not (trained.run / "validation.json").exists()
    assert last_is_exported(trained)


def test_switched_off_at_a_resume_the_last_policy_is_exported(make, train, warm_start):
    train(make(ppo_config=RUINOUS), pretrained_actor=warm_start, stop_at_requests=150)
    trained = train(make({"validation_freq": None}, ppo_config=RUINOUS), load_checkpoint="latest")
    assert last_is_exported(trained)


def last_is_exported(trained) -> bool:
    exported, last = trained.weights["exported"], trained.weights["last"]
    return all(torch.equal(weight, last[name]) for name, weight in exported.items())


def test_scores_are_forgotten_when_the_workload_changes(make, train):
    before = train(make(), stop_at_requests=150).validation
    other = make(workload={"qps": 9.0}, monitoring={"log_level": "info"})
    trained = train(other, load_checkpoint="latest")
    assert "validations so far do not count any more: workload.qps changed" in trained.log
    assert len(before["scores"]) == 4
    # What it goes on from is the first candidate.
    assert [score["updates"] for score in trained.validation["scores"]] == [4, 5, 6]


def test_scores_stay_when_only_the_learning_changes(make, train):
    before = train(make(), stop_at_requests=150).validation
    trained = train(make(ppo_config={"learning_rate": 1e-3}), load_checkpoint="latest")
    assert trained.validation["scores"][:4] == before["scores"]


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("workload.qps", True),
        ("cluster.num_replicas", True),
        ("simulation.predictor", True),
        ("observation.history_alpha", True),
        ("lookahead.ttft_weight", True),
        ("inputs.trace", True),
        ("checkpointing.validation_seeds", True),
        ("checkpointing.validation_requests", True),
        ("checkpointing.validation_freq", False),
        ("parallel_training.num_envs", False),
        ("curriculum_learning.enabled", False),
        ("training.episode_requests", False),
        ("ppo_config.learning_rate", False),
    ],
)
def test_what_scores_are_made_with(key, changes):
    assert changes_scores(key) is changes


@pytest.fixture
def policy(make_config):
    config = make_config()
    made = RoutingPolicy(
        observation_schema(config.observation),
        config.actor_critic_architecture,
        config.observation.clip,
    )
    made.initialize(torch_seed=0)
    return made


@pytest.mark.parametrize(("ttft_weight", "best"), [(1.0, 100), (5.0, 200)])
def test_mean_latency_and_weighted_ttft_decide(policy, ttft_weight, best):
    """5 + 1 against 6 + 0.5; at five times the weight 5 + 5 against 6 + 2.5."""
    candidates = Candidates(ttft_weight)
    for score in (Score(100, 1, e2e_s=5.0, ttft_s=1.0), Score(200, 2, e2e_s=6.0, ttft_s=0.5)):
        candidates.consider(score, policy)
    assert candidates.best.global_step == best


def test_the_first_of_equals_is_the_best(policy):
    candidates = Candidates(1.0)
    assert candidates.consider(Score(100, 1, 5.0, 1.0), policy)
    assert not candidates.consider(Score(200, 2, 5.0, 1.0), policy)
    assert candidates.best.global_step == 100


def test_the_best_policy_stays_as_it_was_while_training_goes_on(policy):
    candidates = Candidates(1.0)
    candidates.consider(Score(100, 1, 5.0, 1.0), policy)
    kept = policy.network.actor_head.weight.detach().clone()
    with torch.no_grad():
        policy.network.actor_head.weight += 1.0
    candidates.consider(Score(200, 2, 6.0, 1.0), policy)
    assert torch.equal(candidates.policy()["network"]["actor_head.weight"], kept)
