"""The learner behind its door: exact resume, one distribution, warm start, effect of its keys."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch

from ppo_scheduler.errors import UserError
from ppo_scheduler.ppo.batches import SampledBatch
from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.ppo.objective import log_probabilities
from ppo_scheduler.ppo.rollout import RolloutBuffer

ALL = slice(None)
"""Environments."""


def run(learner, task, steps):
    return [task.step(learner).tolist() for _ in range(steps)]


def through_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def weights(learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.policy.network.state_dict().items()}


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(params=["gae", "counterfactual"])
def kind(request) -> dict[str, object]:
    """The keys of an update on each kind of advantages."""
    return {"advantage": request.param, "minibatch_size": 16}


@pytest.mark.parametrize("stop", [5, 40, 97, 300])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_interrupted_training_ends_bit_identical(make_learner, make_task, kind, stop, num_envs):
    straight = make_learner(num_envs, ppo_config=kind)
    actions = run(straight, make_task(num_envs), 400)

    task = make_task(num_envs)
    first = make_learner(num_envs, ppo_config=kind)
    before = run(first, task, stop)
    resumed = make_learner(num_envs, ppo_config=kind)
    resumed.load_state_dict(through_file(first.state_dict()))
    after = run(resumed, task, 400 - stop)

    assert before + after == actions
    assert same(weights(straight), weights(resumed))
    assert straight.global_step == resumed.global_step == 400 * num_envs


@pytest.mark.shows("training.seed")
def test_same_seed_same_weights_and_another_seed_others(make_learner, make_task):
    finals = []
    for seed in (1, 1, 2):
        learner = make_learner(training={"seed": seed})
        run(learner, make_task(), 300)
        finals.append(weights(learner))
    assert same(finals[0], finals[1])
    assert not same(finals[0], finals[2])


def test_before_the_first_gradient_step_every_ratio_is_one(make_learner, make_task):
    learner = make_learner(2, temperature_control={"base_temperature": 1.3, "max_temperature": 2.0})
    task = make_task(2)
    while learner.rollout.filled < 30:
        task.step(learner)
    rollout = learner.rollout
    zeros = np.zeros_like(rollout.reward)
    batch = SampledBatch.from_rollout(rollout, ALL, zeros, zeros)
    filled = 30 * 2
    logits, _ = learner.policy.network(batch.replicas[:filled], batch.context[:filled])
    table = log_probabilities(logits, batch.temperature[:filled])
    recomputed = table.gather(1, batch.action[:filled].unsqueeze(1)).squeeze(1)
    ratio = (recomputed - batch.log_prob[:filled]).exp()
    torch.testing.assert_close(ratio, torch.ones(filled), rtol=1e-5, atol=1e-5)


def test_logits_change_with_the_state_while_acting_on_single_observations(make_learner, make_task):
    learner = make_learner()
    task = make_task()
    run(learner, task, 50)
    seen = {
        learner.policy.evaluate(learner.policy.normalize(task.observation()))[0].numpy().tobytes()
    }
    for _ in range(5):
        task.step(learner)
        logits, _ = learner.policy.evaluate(learner.policy.normalize(task.observation()))
        seen.add(logits.numpy().tobytes())
    assert len(seen) == 6


def test_learns_the_toy_task(make_learner, make_task, sink):
    learner = make_learner(4, training={"total_requests": 20_000})
    task = make_task(4)
    run(learner, task, 1500)
    rewards = sink.series("Rollout/RewardMean")
    # Uniform routing earns -1/2, always taking the smallest of three uniforms -1/4.
    assert np.mean(rewards[:3]) < -0.42
    assert np.mean(rewards[-5:]) > -0.29


def test_explained_variance_rises_when_the_value_is_predictable(make_learner, sink):
    learner = make_learner(
        2, reward_config={"horizon_s": 0.43}, ppo_config={"critic_warmup_updates": 3}
    )
    rng = np.random.default_rng(0)
    from ppo_scheduler.observation import Observation

    reward = np.zeros(2)
    for _ in range(600):
        level = rng.random((2, 1))
        observation = Observation(rng.random((2, 3, 2)), level, np.ones((2, 5)))
        learner.decide(observation, reward, np.zeros(2, bool))
        reward = -10.0 * level[:, 0]
    explained = sink.series("Training/ExplainedVariance")
    assert explained[0] < 0.1
    assert explained[-1] > 0.9


def test_warm_start_begins_with_exactly_the_given_policy(
    make_learner, make_task, make_config, toy_schema, sink
):
    teacher = make_learner()
    task = make_task()
    run(teacher, task, 300)
    state = through_file(teacher.policy.state_dict())
    learner = Learner(make_config(), toy_schema, 3, sink, warm_start=state)
    observation = task.observation()
    expected, _ = teacher.policy.evaluate(teacher.policy.normalize(observation))
    actual, _ = learner.policy.evaluate(learner.policy.normalize(observation))
    assert torch.equal(expected, actual)


def test_reference_stays_frozen_and_holds_the_policy_back(
    make_config, make_learner, make_task, toy_schema, sink, kind
):
    teacher = make_learner()
    run(teacher, make_task(), 100)
    state = teacher.policy.state_dict()
    moved = []
    for coefficient in (0.0, 100.0):
        config = make_config(
            kl_regularization={"initial_coef": coefficient, "final_coef": coefficient},
            ppo_config={**kind, "target_kl": None},
        )
        learner = Learner(config, toy_schema, 3, sink, warm_start=state)
        reference = {n: t.clone() for n, t in learner.updater.reference.state_dict().items()}
        run(learner, make_task(), 600)
        assert same(reference, learner.updater.reference.state_dict())
        moved.append(sink.series("Training/ReferenceKL")[-1])
    assert moved[1] < 0.2 * moved[0]


def test_critic_warm_up_leaves_the_policy_alone(make_learner, make_task, sink):
    learner = make_learner(ppo_config={"critic_warmup_updates": 100})
    before = weights(learner)
    run(learner, make_task(), 400)
    after = weights(learner)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"critic_head.weight", "critic_head.bias"}
    assert sink.series("Training/ValueLoss")[-1] < 0.5


@pytest.mark.shows("statistics_stabilization.collect_steps")
def test_collection_feeds_statistics_and_learns_nothing(make_learner, make_task, sink):
    learner = make_learner(statistics_stabilization={"collect_steps": 200})
    run(learner, make_task(), 200)
    assert learner.rollout.filled == 0
    assert not sink.records
    assert learner.policy.replica_statistics.state_dict()["count"] > 0


@pytest.mark.shows("ppo_config.max_nonfinite_steps")
def test_not_finite_gradients_are_skipped_and_then_fail(make_learner, make_task):
    learner = make_learner(ppo_config={"max_nonfinite_steps": 3})
    run(learner, make_task(), 200)
    before = weights(learner)
    zeros = np.zeros_like(learner.rollout.reward)
    rollout: RolloutBuffer = learner.rollout
    rollout.replicas[:] = 0.0
    batch = SampledBatch.from_rollout(rollout, ALL, zeros * math.nan, zeros)
    rng, lengths = np.random.default_rng(0), np.array([len(batch)])
    with pytest.raises(UserError, match="3 gradient steps in a row"):
        learner.updater.update([batch], lengths, learner._coefficients(), rng)
    assert same(before, weights(learner))


def test_a_checkpoint_of_the_other_kind_goes_on_without_its_rollout(make_learner, make_task):
    returns = make_learner()
    run(returns, make_task(), 150)
    events = []
    costs = make_learner(
        on_event=events.append, ppo_config={"advantage": "counterfactual", "minibatch_size": 16}
    )
    costs.load_state_dict(through_file(returns.state_dict()))
    assert same(weights(costs), weights(returns))
    assert 'what ppo_config.advantage="counterfactual" needs: it is collected anew' in events[0]
    run(costs, make_task(), 150)
    assert costs.global_step == 300
    assert costs.updates > returns.updates


def test_a_checkpoint_of_another_cluster_size_goes_on_without_its_rollout(make_learner, make_task):
    small = make_learner(num_replicas=3)
    run(small, make_task(num_replicas=3), 150)
    events = []
    large = make_learner(num_replicas=6, on_event=events.append)
    large.load_state_dict(through_file(small.state_dict()))
    run(large, make_task(num_replicas=6), 150)
    assert "3 replicas" in events[0]
    assert large.global_step == 300


@pytest.mark.shows("checkpointing.save_optimizer_state")
def test_without_optimizer_state_adamw_starts_afresh(make_learner, make_task):
    learner = make_learner(checkpointing={"save_optimizer_state": False})
    run(learner, make_task(), 200)
    state = learner.state_dict()
    assert state["learner"]["updater"]["adamw"] is None
    resumed = make_learner(checkpointing={"save_optimizer_state": False})
    resumed.load_state_dict(state)
    fresh = make_learner().updater.state_dict(with_optimizer=True)["adamw"]
    restored = resumed.updater.state_dict(with_optimizer=True)["adamw"]
    assert restored["steps"] == fresh["steps"] == 0
    assert not restored["exp_avg"].any()


@pytest.mark.shows(
    "ppo_config.rollout_len",
    "ppo_config.epochs",
    "ppo_config.minibatch_size",
    "ppo_config.learning_rate",
    "ppo_config.weight_decay",
    "ppo_config.adam_eps",
    "ppo_config.gae_lambda",
    "ppo_config.clip_ratio",
    "ppo_config.value_clip",
    "ppo_config.value_coef",
    "ppo_config.normalize_advantages",
    "ppo_config.max_grad_norm",
    "ppo_config.critic_warmup_updates",
    "ppo_config.entropy_coef_initial",
)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 3),
        ("minibatch_size", 16),
        ("rollout_len", 96),
        ("learning_rate", 1e-3),
        ("weight_decay", 0.1),
        ("adam_eps", 1e-3),
        ("gae_lambda", 0.5),
        ("clip_ratio", 0.05),
        ("value_clip", None),
        ("value_coef", 2.0),
        ("normalize_advantages", False),
        ("max_grad_norm", 0.05),
        ("target_kl", 1e-4),
        ("critic_warmup_updates", 2),
        ("entropy_coef_initial", 0.5),
        ("action_balance_coef", 2.0),
    ],
)
def test_every_key_of_the_update_changes_the_weights(make_learner, make_task, key, value):
    usual, changed = make_learner(), make_learner(ppo_config={key: value})
    for learner in (usual, changed):
        run(learner, make_task(), 500)
    assert not same(weights(usual), weights(changed))


@pytest.mark.shows("ppo_config.target_kl")
def test_target_kl_stops_an_update_early(make_learner, make_task, sink, kind):
    learner = make_learner(ppo_config={**kind, "epochs": 4, "target_kl": 1e-5})
    run(learner, make_task(), 400)
    assert min(sink.series("Training/EpochsDone")) < 4


@pytest.mark.shows("ppo_config.action_balance_coef")
def test_action_balance_evens_out_the_mean_probabilities(make_learner, make_task, sink):
    balance = []
    for coefficient in (0.0, 5.0):
        learner = make_learner(ppo_config={"action_balance_coef": coefficient})
        task = make_task()
        task.rng = np.random.default_rng(3)
        run(learner, task, 600)
        balance.append(sink.series("Training/ActionBalance")[-1])
    assert balance[1] < balance[0]


@pytest.mark.shows("observation.clip")
def test_clipped_observations_stay_within_the_clip(make_learner, make_task):
    learner = make_learner(observation={"clip": 0.5})
    task = make_task()
    run(learner, task, 100)
    replicas, _ = learner.policy.normalize(task.observation())
    assert np.abs(learner.rollout.replicas).max() == 0.5
    assert np.abs(replicas).max() <= 0.5


@pytest.mark.shows("reward_config.horizon_s")
def test_horizon_s_sets_how_far_the_return_reaches(make_learner, make_task, sink):
    """A second passes between decisions: none of it is left after a thousandth of a second, and
    within a thousand seconds the whole rollout is worth what it earns."""
    means = []
    for horizon_s in (1e-3, 1e3):
        learner = make_learner(
            reward_config={"horizon_s": horizon_s, "normalize": False},
            ppo_config={"gae_lambda": 1.0},
        )
        run(learner, make_task(), 100)
        means.append((sink.series("Rollout/ReturnMean")[-1], sink.series("Rollout/RewardMean")[-1]))
    (near_return, near_reward), (far_return, far_reward) = means
    assert near_return == pytest.approx(near_reward)
    assert far_return < 10 * far_reward < 0


@pytest.mark.shows("reward_config.normalize")
def test_unnormalised_rewards_are_stored_as_they_are(make_learner, make_task):
    learner = make_learner(reward_config={"normalize": False})
    run(learner, make_task(), 80)
    filled = learner.rollout.filled
    assert filled > 0
    np.testing.assert_array_equal(
        learner.rollout.reward[:filled], learner.rollout.raw_reward[:filled]
    )


@pytest.mark.shows("reward_config.clip")
def test_reward_clip_bounds_the_scaled_rewards(make_learner, make_task):
    learner = make_learner(reward_config={"clip": 0.3})
    run(learner, make_task(), 90)
    assert np.abs(learner.rollout.reward).max() == pytest.approx(0.3)


def test_the_guard_intervenes_in_acting_and_learning(make_learner, make_task, sink, kind):
    events = []
    learner = make_learner(
        on_event=events.append,
        ppo_config=kind,
        collapse_guard={"window": 16, "max_share": 0.34, "intervention_steps": 64},
    )
    run(learner, make_task(), 300)
    assert events
    assert max(sink.series("Training/EntropyCoef")) == 0.05
    assert learner.rollout.temperature.max() > 1.2


def test_action_log_holds_the_running_episode_only(make_learner, make_task):
    learner = make_learner()
    task = make_task()
    actions = run(learner, task, 120)
    assert learner.action_log.together().tolist() == [[a[0] for a in actions[100:]]]


@pytest.mark.shows("training.kernel")
def test_kernel_computes_alike_and_not_by_the_same_code(make_learner, make_task):
    ends = {}
    for kernel in ("fused", "torch"):
        learner, task = make_learner(training={"kernel": kernel}), make_task()
        assert learner.policy.network.is_fused == (kernel == "fused")
        while learner.updates < 2:
            task.step(learner)
        ends[kernel] = weights(learner)
    fused, reference = ends["fused"], ends["torch"]
    for name, weight in reference.items():
        torch.testing.assert_close(fused[name], weight, rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(fused[name], weight) for name, weight in reference.items())
