"""The policy in NumPy routes as the one in torch, and refuses what it cannot route by."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ppo_scheduler.deployed import RoutingPolicy, Snapshot
from ppo_scheduler.deployed.policy import NEAR_TIE
from ppo_scheduler.errors import UserError

REPLICAS = (1, 2, 3, 4, 7, 8, 16, 31, 32)
STATES = 120
"""Of each case and number of replicas: 10 cases x 9 x 120 make 10,800."""

CASES = {
    "default": {"features": 31, "common": 14},
    "tanh": {"features": 31, "common": 14, "activation": "tanh"},
    "relu": {"features": 31, "common": 14, "activation": "relu"},
    "attention": {"features": 31, "common": 14, "attention_layers": 1},
    "more attention": {"attention_layers": 3, "attention_heads": 2, "activation": "relu"},
    "one head": {"attention_layers": 1, "attention_heads": 1, "activation": "tanh"},
    "wide and deep": {"features": 40, "common": 9, "hidden_size": 128, "encoder_layers": 4},
    "narrow and flat": {"hidden_size": 4, "encoder_layers": 1},
    "few features": {"features": 1, "common": 1},
    "tight clip": {"features": 31, "common": 14, "clip": 0.5},
}


def logits_of(policy, observation) -> np.ndarray:
    return policy.evaluate(policy.normalize(observation))[0].numpy()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_chooses_as_torch_does(case, make_policy, deploy, draw_states) -> None:
    trained = make_policy(**case)
    deployed = RoutingPolicy.load(deploy(trained))
    rng = np.random.default_rng(3)
    features = len(deployed.replica_features), len(deployed.context_features)
    other_choices, spread = 0, []
    for replicas in REPLICAS:
        observation = draw_states(rng, replicas, *features, STATES)
        expected, choices = logits_of(trained, observation), trained.greedy(observation)
        for state in range(STATES):
            snapshot = Snapshot(observation.replicas[state], observation.context[state])
            np.testing.assert_allclose(
                deployed.logits(snapshot), expected[state], rtol=0, atol=NEAR_TIE / 2
            )
            choice = deployed.route(snapshot)
            assert expected[state].max() - expected[state, choice] <= NEAR_TIE
            other_choices += choice != choices[state]
        spread.append(np.ptp(expected, axis=1))
    assert np.median(np.concatenate(spread)) > 100 * NEAR_TIE, "choices must not be all near-ties"
    assert other_choices <= 1, "two logits of a random state are hardly ever equal but for rounding"


def test_its_logits_are_those_worked_out_by_hand(make_policy, deploy) -> None:
    """A feature x of mean 3 and deviation 2 becomes (x - 3) / 2, and through ReLU the hidden state
    (h, 0, 0, 0). Its norm is (sqrt 3, -1 / sqrt 3, ...) whatever h > 0 is, and zeros for h = 0."""
    policy = make_policy(
        1, 1, hidden_size=4, encoder_layers=1, attention_heads=1, activation="relu"
    )
    policy.replica_statistics.load_state_dict(
        {"count": 2, "mean": torch.tensor([3.0]).double(), "squares": torch.tensor([8.0]).double()}
    )
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.zero_()
        policy.network.replica_input.weight[0, 0] = 100.0
        policy.network.norm.weight.fill_(1.0)
        policy.network.actor_head.weight[0] = torch.tensor([2.0, 1.0, 0.0, 0.0])
        policy.network.actor_head.bias.fill_(0.25)
    deployed = RoutingPolicy.load(deploy(policy))
    logits = deployed.logits(Snapshot(np.array([[1.0], [5.0], [9.0]]), np.array([7.0])))
    high = 2.0 * np.sqrt(3.0) - 1.0 / np.sqrt(3.0) + 0.25
    np.testing.assert_allclose(logits, [0.25, high, high], rtol=1e-6)


def test_beyond_the_clip_all_is_equal(make_policy, deploy) -> None:
    deployed = RoutingPolicy.load(deploy(make_policy()))
    states = np.full((2, 5), 2.0)
    states[:, 3] = 1e6, 1e12
    logits = deployed.logits(Snapshot(states, np.full(3, 2.0)))
    assert logits[0] == pytest.approx(logits[1], abs=1e-6)


@pytest.mark.parametrize("attention_layers", [0, 1])
def test_one_of_equal_replicas_is_as_good_as_another(
    attention_layers, make_policy, deploy, draw_states
) -> None:
    trained = make_policy(attention_layers=attention_layers)
    deployed = RoutingPolicy.load(deploy(trained))
    for state in range(50):
        one = draw_states(np.random.default_rng(state), 2, 5, 3, 1)
        twins = one.replicas[0][[0, 1, 0, 1, 0]]
        expected = logits_of(trained, type(one)(twins[None], one.context, one.telemetry))[0]
        choice = deployed.route(Snapshot(twins, one.context[0]))
        assert expected.max() - expected[choice] <= NEAR_TIE


def test_what_it_takes_may_be_plain_lists(make_policy, deploy) -> None:
    deployed = RoutingPolicy.load(str(deploy(make_policy())))
    rows = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
    assert deployed.route(Snapshot(rows, [1, 2, 3])) == deployed.route(
        Snapshot(np.array(rows, float), np.array([1.0, 2.0, 3.0]))
    )


def test_it_tells_its_features_and_where_it_comes_from(make_policy, deploy) -> None:
    trained = make_policy()
    deployed = RoutingPolicy.load(deploy(trained))
    assert [feature.name for feature in deployed.replica_features] == list(trained.schema.replica)
    assert [feature.name for feature in deployed.context_features] == ["c0", "c1", "c2"]
    first = deployed.replica_features[0]
    assert (first.unit, first.meaning) == ("requests", "r0 of the test")
    assert first.mean == trained.replica_statistics.mean[0]
    assert first.std == trained.replica_statistics.std[0]
    assert deployed.origin == {"by": "a test"}


@pytest.mark.parametrize(
    ("replicas", "context", "message"),
    [
        (np.zeros((4, 6)), np.zeros(3), "replicas are of shape [4, 6], not [R, 5]"),
        (np.zeros((0, 5)), np.zeros(3), "replicas are of shape [0, 5], not [R, 5]"),
        (np.zeros((1, 4, 5)), np.zeros(3), "replicas are of shape [1, 4, 5], not [R, 5]"),
        (np.zeros((4, 5)), np.zeros(4), "context is of shape [4], not [3]"),
        (np.zeros((4, 5)), np.zeros((1, 3)), "context is of shape [1, 3], not [3]"),
        (np.array([[0.0] * 5, [0, 0, np.nan, 0, 0]]), np.zeros(3), "r2 of replica 1 is not finite"),
        (np.full((1, 5), np.inf), np.zeros(3), "r0 of replica 0 is not finite"),
        (np.zeros((4, 5)), np.array([0.0, np.nan, 0.0]), "c1 is not finite"),
    ],
)
def test_a_snapshot_of_something_else_is_refused(
    replicas, context, message, make_policy, deploy
) -> None:
    deployed = RoutingPolicy.load(deploy(make_policy()))
    with pytest.raises(UserError) as refusal:
        deployed.route(Snapshot(replicas, context))
    assert message in str(refusal.value)


_ROUTE = """
import sys
from ppo_scheduler.deployed import RoutingPolicy, Snapshot
policy = RoutingPolicy.load(sys.argv[1])
example = __import__("json").load(open(sys.argv[1], encoding="utf-8"))["example"]
print(policy.route(Snapshot(example["replicas"], example["context"])))
print(*sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names))
"""


def test_a_gateway_needs_numpy_alone(make_policy, deploy) -> None:
    path = deploy(make_policy(attention_layers=1))
    done = subprocess.run(
        [sys.executable, "-c", _ROUTE, path], capture_output=True, text=True, check=True
    )
    choice, modules = done.stdout.splitlines()
    assert int(choice) == json.loads(path.read_text(encoding="utf-8"))["example"]["replica"]
    loaded = set(modules.split())
    assert {"numpy", "ppo_scheduler"} <= loaded
    assert not loaded & {"torch", "numba", "vidur", "vidur_ext", "pydantic", "typing_extensions"}
