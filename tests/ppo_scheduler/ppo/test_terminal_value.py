"""What prices leave out of the differences between choices, and how much of it is foreseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ppo_scheduler.config.learner_sections import ArchitectureSection
from ppo_scheduler.errors import IncompatibleState
from ppo_scheduler.observation import Observation, ObservationSchema
from ppo_scheduler.ppo.terminal_value import Branches, TerminalValue

SCHEMA = ObservationSchema(replica=("load", "noise"), context=("size",), telemetry=())
SMALL = ArchitectureSection(hidden_size=8, attention_heads=2)
STEPS = 800


def new_value() -> TerminalValue:
    return TerminalValue(SCHEMA, SMALL, clip=10.0, kernel="fused")


def seen(rng: np.random.Generator, decisions: int, replicas: int = 4) -> Observation:
    return Observation(
        rng.random((decisions, replicas, 2)), rng.random((decisions, 1)), np.zeros((decisions, 0))
    )


def branches(missed, decisions: int = 4000, seed: int = 0) -> Branches:
    """Return decisions with random prices, of which three of four choices were gone through.

    Args:
        missed: of (observation, costs), what prices leave out [N, 4].
    """
    rng = np.random.default_rng(seed)
    observation, costs = seen(rng, decisions), rng.random((decisions, 4))
    choices = rng.random((decisions, 4)).argsort(axis=1)[:, :3]
    outcomes = costs + missed(observation, costs) + 100.0 * rng.random((decisions, 1))
    return Branches(observation, costs, choices, np.take_along_axis(outcomes, choices, axis=1))


def of_load(observation, costs):
    return 3.0 * observation.replicas[:, :, 0]


def test_what_prices_miss_is_what_is_left_of_the_differences():
    """By hand: choices 2 and 0 were priced 5 and 1, and cost 20 and 12 with what came later."""
    nothing = Observation(np.zeros((1, 3, 2)), np.zeros((1, 1)), np.zeros((1, 0)))
    one = Branches(
        nothing, np.array([[1.0, 9.0, 5.0]]), np.array([[2, 0]]), np.array([[20.0, 12.0]])
    )
    assert one.missed.tolist() == [[2.0, -2.0]]


def test_costs_are_corrected_by_what_is_foreseen():
    value, data = new_value(), branches(of_load)
    assert value.learn(data, STEPS, seed=1) > 0.8
    observation = seen(np.random.default_rng(5), 100)
    costs = np.random.default_rng(6).random((100, 4))
    added = value.add_to(costs, observation) - costs
    expected = of_load(observation, costs)
    expected -= expected.mean(axis=1, keepdims=True)
    assert np.corrcoef(added.ravel(), expected.ravel())[0, 1] > 0.9
    assert added.std() == pytest.approx(expected.std(), rel=0.2)


def test_it_sees_the_price_of_a_choice():
    def too_dear_by_half(observation, costs):
        return -0.5 * costs

    assert new_value().learn(branches(too_dear_by_half), STEPS, seed=1) > 0.8


def test_of_chance_nothing_is_foreseen():
    def chance(observation, costs):
        return np.random.default_rng(9).normal(size=costs.shape)

    assert new_value().learn(branches(chance), STEPS, seed=1) < 0.02


def test_where_prices_leave_nothing_out_nothing_is_added():
    value = new_value()
    value.learn(branches(lambda observation, costs: 0.0 * costs), STEPS, seed=1)
    observation, costs = (
        seen(np.random.default_rng(5), 10),
        np.random.default_rng(6).random((10, 4)),
    )
    assert value.add_to(costs, observation) == pytest.approx(costs, abs=0.05)


@pytest.fixture(scope="module")
def learned():
    value = new_value()
    value.learn(branches(of_load, 500), 50, seed=1)
    return value


def test_what_was_not_priced_stays_unpriced(learned):
    observation, costs = seen(np.random.default_rng(5), 4), np.random.default_rng(6).random((4, 4))
    costs[[0, 2]] = np.nan
    corrected = learned.add_to(costs, observation)
    assert np.isnan(corrected).all(axis=1).tolist() == [True, False, True, False]
    alone = learned.add_to(costs[[1]], Observation(
        observation.replicas[[1]], observation.context[[1]], observation.telemetry[[1]]
    ))  # fmt: skip
    assert corrected[1] == pytest.approx(alone[0])


def test_nothing_priced_is_nothing_to_correct(learned):
    costs = np.full((2, 4), np.nan)
    assert np.isnan(learned.add_to(costs, seen(np.random.default_rng(5), 2))).all()


def test_the_mean_over_the_choices_stays(learned):
    observation, costs = seen(np.random.default_rng(5), 9), np.random.default_rng(6).random((9, 4))
    corrected = learned.add_to(costs, observation)
    assert corrected.mean(axis=1) == pytest.approx(costs.mean(axis=1))
    assert not np.allclose(corrected, costs)


def test_it_serves_any_number_and_order_of_replicas(learned):
    rng = np.random.default_rng(5)
    observation, costs, order = seen(rng, 3, replicas=6), rng.random((3, 6)), rng.permutation(6)
    turned = replace(observation, replicas=observation.replicas[:, order])
    expected = learned.add_to(costs, observation)[:, order]
    assert learned.add_to(costs[:, order], turned) == pytest.approx(expected)


def test_a_saved_one_adds_the_very_same(learned):
    again = new_value()
    again.load_state_dict(learned.state_dict())
    observation, costs = seen(np.random.default_rng(5), 9), np.random.default_rng(6).random((9, 4))
    assert np.array_equal(again.add_to(costs, observation), learned.add_to(costs, observation))


def test_one_for_other_features_is_refused(learned):
    other = TerminalValue(replace(SCHEMA, replica=("load",)), SMALL, clip=10.0, kernel="fused")
    with pytest.raises(IncompatibleState, match="other features"):
        other.load_state_dict(learned.state_dict())


def test_a_learner_learns_from_corrected_costs(make_learner, make_task):
    """Costs say that all choices are alike; what they leave out says which one is best."""

    class Constant(TerminalValue):
        def add_to(self, costs, observation):
            return costs + np.array([0.0, -1.0, 0.0])

    counterfactual = {"advantage": "counterfactual", "minibatch_size": 16}
    learner, task = make_learner(1, ppo_config=counterfactual), make_task(1)
    learner.terminal_value = Constant(learner.policy.schema, SMALL, 10.0, "fused")
    for _ in range(60):
        task.loads[:] = 0.0
        task.step(learner)
    priced = ~np.isnan(learner.rollout.costs[: learner.rollout.filled, 0]).all(axis=1)
    kept = learner.rollout.costs[: learner.rollout.filled, 0][priced]
    assert priced.any()
    assert (kept == [0.0, -1.0, 0.0]).all()
