"""Counterfactual advantages: the learner asks for costs of choices, and learns from them alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppo_scheduler.config.learner_sections import PPOSection
from ppo_scheduler.observation import Observation
from ppo_scheduler.ppo.batches import PricedBatch
from ppo_scheduler.ppo.objective import entropy, log_probabilities

COSTS = {"advantage": "counterfactual", "minibatch_size": 16}
SECTION = PPOSection()
ALL = slice(None)
"""Environments."""


@pytest.fixture
def make(make_learner):
    """Make a learner that learns from costs; ``keys`` are those of the update."""

    def learner(num_envs: int = 1, keys: dict[str, object] | None = None, **groups):
        return make_learner(num_envs, ppo_config={**COSTS, **(keys or {})}, **groups)

    return learner


def run(learner, task, steps: int) -> None:
    for _ in range(steps):
        task.step(learner)


def run_until_almost_full(learner, task) -> None:
    """Stop one decision before the update; the last row, which is still to come, has no price."""
    while learner.rollout.filled < learner.rollout.length - 1:
        task.step(learner)
    learner.rollout.costs[-1] = np.nan


def weights(learner) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(learner.policy.network.parameters()).detach()


@pytest.mark.shows("ppo_config.counterfactual_share")
@pytest.mark.parametrize(("share", "num_envs"), [(0.25, 4), (0.3, 10), (0.07, 3), (1.0, 2)])
def test_it_asks_each_environment_in_turn_for_exactly_the_share(make, make_task, share, num_envs):
    keys = {"counterfactual_share": share, "minibatch_size": 4}
    learner, task = make(num_envs, keys), make_task(num_envs)
    asked = []
    for _ in range(100):
        asked.append(learner.asks())
        task.step(learner)
    table = np.array(asked)
    assert table.sum(axis=0).tolist() == [round(100 * share)] * num_envs
    at_once = table.sum(axis=1)
    assert at_once.max() - at_once.min() <= 1


@pytest.mark.shows("ppo_config.advantage")
def test_what_it_learns_from_is_what_advantage_says(make_learner, make_task):
    """GAE asks for no costs, and goes another way."""
    ends = []
    for advantage, asks in (("gae", False), ("counterfactual", True)):
        learner = make_learner(ppo_config={**COSTS, "advantage": advantage})
        assert (learner.asks() is not None) == asks
        run(learner, make_task(), 300)
        ends.append(weights(learner))
    assert not torch.equal(*ends)


def right_choices(learner, task) -> float:
    """Return for what share of many states the policy's first choice is the best one."""
    best = task.loads.argmin(axis=1)
    return float((learner.policy.greedy(task.observation()) == best).mean())


def test_costs_teach_in_far_fewer_steps_than_returns(make_learner, make_task):
    """Rewards vary with what no choice can change, as they do where requests wait for others."""
    found = {}
    for advantage, steps in (("counterfactual", 200), ("gae", 400)):
        learner = make_learner(
            4, ppo_config={**COSTS, "advantage": advantage, "counterfactual_share": 1.0}
        )
        task = make_task(4)
        for _ in range(steps):
            task.step(learner)
            task.reward += task.rng.normal(0.0, 5.0, 4)
        found[advantage] = right_choices(learner, make_task(500, seed=9))
    assert found["counterfactual"] > 0.88
    assert found["gae"] < 0.8


def test_a_quarter_of_the_decisions_is_enough(make, make_task):
    learner = make(4)
    run(learner, make_task(4), 800)
    assert right_choices(learner, make_task(500, seed=9)) > 0.88


def test_rewards_do_not_matter(make, make_task):
    ends = []
    for scale in (1.0, -100.0):
        learner, task = make(2), make_task(2)
        for _ in range(200):
            task.step(learner)
            task.reward *= scale
        ends.append(weights(learner))
    assert torch.equal(*ends)


def test_what_a_decision_cost_without_a_price_is_not_learned_from(make, make_task):
    """Whatever stands in the rows that are not priced, the update is the same."""
    ends = []
    for garbage in (False, True):
        learner, task = make(4), make_task(4)
        run_until_almost_full(learner, task)
        rollout = learner.rollout
        priced = ~np.isnan(rollout.costs).any(axis=-1)
        assert priced.sum() == 15
        if garbage:  # the last row is overwritten by the decision at hand
            rollout.replicas[~priced] = 7.0
            rollout.context[~priced] = -3.0
            rollout.temperature[~priced] = 0.1
        before = weights(learner)
        task.step(learner)
        assert learner.updates == 1
        assert not torch.equal(weights(learner), before)
        ends.append(weights(learner))
    assert torch.equal(*ends)


def test_before_the_first_gradient_step_every_ratio_of_every_action_is_one(make, make_task):
    """What acted, at its temperature, is what is learned from: no loss, no KL, nothing clipped."""
    learner = make(2, temperature_control={"base_temperature": 1.3, "max_temperature": 2.0})
    run_until_almost_full(learner, make_task(2))
    rollout = learner.rollout
    priced = ~np.isnan(rollout.costs).any(axis=-1)
    batch = PricedBatch.from_rollout(rollout, ALL, learner.policy.network)
    assert len(batch) == priced.sum()
    assert (batch.temperature == 1.3).all()

    taken = torch.from_numpy(rollout.action[priced]).unsqueeze(1)
    acted = torch.from_numpy(rollout.log_prob[priced]).float()
    recomputed = batch.behavior.gather(1, taken).squeeze(1)
    torch.testing.assert_close(recomputed, acted, rtol=1e-5, atol=1e-5)

    logits, value = learner.policy.network(batch.replicas, batch.context)
    now = log_probabilities(logits, batch.temperature)
    torch.testing.assert_close((now - batch.behavior).exp(), torch.ones_like(now))
    loss, statistics = batch.surrogate(now, value, SECTION)
    for of_decisions in (loss, *statistics.values()):
        assert float(of_decisions.detach().abs().max()) == pytest.approx(0.0, abs=1e-6)


def test_regret_is_what_the_best_choice_would_have_saved(make, sink):
    """Three choices at 0, 1 and 2, and a policy that does not know one from another yet."""
    learner = make()
    seen = Observation(np.ones((1, 3, 2)), np.ones((1, 1)), np.ones((1, 5)))
    while not sink.records:
        costs = np.where(learner.asks()[:, None], [[10.0, 11.0, 12.0]], np.nan)
        learner.decide(seen, np.zeros(1), np.zeros(1, dtype=bool), costs)
    assert sink.series("Rollout/Regret")[0] == pytest.approx(1.0, abs=0.01)
    assert sink.series("Rollout/AdvantageStd")[0] == pytest.approx(np.std([1, 0, -1]), abs=0.02)


@pytest.mark.shows("ppo_config.advantage_clip")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("counterfactual_share", 0.5),
        ("advantage_clip", 0.5),
        ("normalize_advantages", False),
        ("epochs", 3),
        ("minibatch_size", 8),
        ("rollout_len", 96),
        ("learning_rate", 1e-3),
        ("weight_decay", 0.1),
        ("adam_eps", 1e-3),
        ("clip_ratio", 0.05),
        ("max_grad_norm", 0.05),
        ("entropy_coef_initial", 0.5),
        ("action_balance_coef", 2.0),
    ],
)
def test_these_keys_change_the_weights(make, make_task, key, value):
    usual, changed = make(), make(keys={key: value})
    for learner in (usual, changed):
        run(learner, make_task(), 300)
    assert not torch.equal(weights(usual), weights(changed))


@pytest.mark.parametrize(
    "change",
    [
        {"keys": {"gae_lambda": 0.5}},
        {"keys": {"value_clip": None}},
        {"keys": {"value_coef": 2.0}},
        {"keys": {"critic_warmup_updates": 3}},
        {"reward_config": {"normalize": False}},
        {"reward_config": {"clip": 0.1}},
        {"reward_config": {"horizon_s": 100.0}},
    ],
)
def test_keys_of_gae_do_not_matter(make, make_task, change):
    usual, changed = make(), make(**change)
    for learner in (usual, changed):
        run(learner, make_task(), 200)
    assert torch.equal(weights(usual), weights(changed))


def test_advantages_that_are_not_normalized_keep_their_unit(make, make_task):
    """Within the clip they are request-seconds; normalized, they have a deviation of one."""
    learner = make(2)
    run_until_almost_full(learner, make_task(2))
    batch = PricedBatch.from_rollout(learner.rollout, ALL, learner.policy.network)
    deviation, far = float(batch.advantage.std()), 1e3
    kept = batch.scaled(deviation, far, normalize=False).advantage
    torch.testing.assert_close(kept, batch.advantage)
    normalized = batch.scaled(deviation, far, normalize=True).advantage
    assert float(normalized.std()) == pytest.approx(1.0, rel=1e-3)
    halved = batch.scaled(deviation, 0.5, normalize=False).advantage
    assert float(halved.abs().max()) == pytest.approx(0.5 * deviation)


def test_entropy_and_the_clip_hold_the_policy_back(make, make_task):
    """An entropy bonus keeps choices open that costs alone would close."""
    left = []
    for coefficient in (0.0, 1.0):
        learner = make(4, {"entropy_coef_initial": coefficient, "entropy_coef_final": coefficient})
        run(learner, make_task(4), 400)
        states = make_task(200, seed=5).observation()
        logits, _ = learner.policy.evaluate(learner.policy.normalize(states))
        log_probs = log_probabilities(logits, torch.ones(len(logits)))
        left.append(float(entropy(log_probs).mean()))
    assert left[0] < 0.7 < left[1]
