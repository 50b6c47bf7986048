"""The file of a deployed policy: readable, and refused in one sentence if it does not fit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler.deployed import RoutingPolicy, Snapshot
from ppo_scheduler.errors import UserError
from ppo_scheduler.policy.routing_policy import save_policy
from ppo_scheduler.sealed_json import sealed


@pytest.fixture
def file(make_policy, deploy) -> Path:
    return deploy(make_policy(hidden_size=8, attention_layers=1))


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        RoutingPolicy.load(path)
    text = str(refused.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def rewrite(path: Path, change) -> None:
    """Change the object in a file, and seal it again as who wrote it would."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    del tree["sha256"]
    change(tree)
    path.write_bytes(sealed(json.dumps(tree, indent=2).encode(), "sha256"))


def setter(*keys_and_value):
    """Return a change that sets what is below some keys."""
    *keys, last, value = keys_and_value

    def change(tree) -> None:
        for key in keys:
            tree = tree[key]
        tree[last] = value

    return change


def test_any_language_reads_it(file) -> None:
    tree = json.loads(file.read_text(encoding="utf-8"))
    assert list(tree) == [
        "format",
        "version",
        "features",
        "clip",
        "network",
        "example",
        "origin",
        "sha256",
    ]
    assert tree["features"]["replica"][0].keys() == {"name", "unit", "meaning", "mean", "std"}
    assert len(tree["network"]["weights"]["replica_input.weight"]) == 8
    assert not [name for name in tree["network"]["weights"] if "critic" in name]


def test_it_holds_every_weight_to_the_bit(file, make_policy) -> None:
    weights = json.loads(file.read_text(encoding="utf-8"))["network"]["weights"]
    network = make_policy(hidden_size=8, attention_layers=1).network.state_dict()
    for name, rows in weights.items():
        assert torch.equal(torch.tensor(rows, dtype=torch.float32), network[name])


def test_the_example_is_of_several_replicas_and_clear(file) -> None:
    example = json.loads(file.read_text(encoding="utf-8"))["example"]
    best, second = sorted(example["logits"], reverse=True)[:2]
    assert len(example["logits"]) == 4
    assert best == example["logits"][example["replica"]] > second + 1e-3


def test_it_is_written_alike_each_time(file, make_policy, deploy) -> None:
    before = file.read_bytes()
    assert deploy(make_policy(hidden_size=8, attention_layers=1)).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setter("version", 2), "has version 2, this program reads version 1"),
        (setter("version", None), "has version None"),
        (setter("format", "another"), "is not a policy to deploy"),
        (setter("clip", 0.0), "clip is not above 0"),
        (setter("clip", "ten"), "clip holds something else than numbers"),
        (setter("more", 1), "the file has more, which this program does not know"),
        (lambda tree: tree.pop("example"), "the file lacks example"),
        (setter("origin", 3), "origin is no object"),
        (setter("features", "replica", []), "features.replica is no list of features"),
        (
            lambda tree: tree["features"]["replica"].pop(),
            "network.weights.replica_input.weight is of shape [8, 5], not [8, 4]",
        ),
        (
            lambda tree: tree["features"]["context"].append(
                {**tree["features"]["context"][0], "name": "c3"}
            ),
            "network.weights.context_input.weight is of shape [8, 3], not [8, 4]",
        ),
        (setter("features", "replica", 1, "name", "r0"), "features.replica has a name twice"),
        (setter("features", "replica", 1, "std", 0), "features.replica[1].std is not above 0"),
        (
            setter("features", "context", 0, "mean", float("nan")),
            "features.context[0].mean holds a number that is not finite",
        ),
        (setter("features", "replica", 0, "unit", 3), "features.replica[0].unit is no text"),
        (setter("network", "activation", "gelu"), "activation is none of tanh, relu, silu"),
        (setter("network", "attention_heads", 3), "attention_heads does not divide"),
        (setter("network", "hidden_size", 8.0), "hidden_size is no whole number from 1 to 4096"),
        (setter("network", "encoder_layers", 10**12), "encoder_layers is no whole number from 1"),
        (setter("network", "attention_layers", 2), "network.weights lacks attention.1.norm.weight"),
        (
            lambda tree: tree["network"]["weights"].update(critic=[1.0]),
            "network.weights has critic, which this program does not know",
        ),
        (
            setter("network", "weights", "norm.bias", 2, float("nan")),
            "network.weights.norm.bias holds a number that is not finite",
        ),
        (
            setter("network", "weights", "norm.bias", 2, 1e39),
            "network.weights.norm.bias holds a number that is not finite",
        ),
        (
            setter("network", "weights", "norm.bias", 2, "1.0"),
            "network.weights.norm.bias holds something else than numbers",
        ),
        (
            lambda tree: tree["network"]["weights"]["encoder.0.weight"][3].pop(),
            "network.weights.encoder.0.weight is not of shape [8, 8]: its rows differ in length",
        ),
        (
            setter("network", "weights", "actor_head.bias", [3.0]),
            "gives other logits for its example",
        ),
        (setter("example", "replica", 4), "example.replica is none of the replicas"),
        (setter("example", "replica", 0), "gives other logits for its example"),
    ],
)
def test_what_does_not_fit_together_is_named(file, change, message) -> None:
    rewrite(file, change)
    assert message in refusal(file)


@pytest.mark.parametrize("kept", [0, 1, 1000, -40, -3])
def test_a_file_that_is_cut_off_is_refused(file, kept) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    assert "is not JSON" in refusal(file)


def test_an_edited_file_is_refused(file) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("of the test", "of the jest"), encoding="utf-8")
    assert "is damaged or was edited: its sha256 is another" in refusal(file)


def test_a_missing_file_is_named(tmp_path) -> None:
    assert "cannot read the policy (No such file or directory)" in refusal(tmp_path / "none.json")


def test_a_policy_of_torch_is_no_deployed_one(tmp_path, make_policy) -> None:
    save_policy(make_policy(), tmp_path / "policy.pt")
    assert "no exported policy" in refusal(tmp_path / "policy.pt")


def test_a_policy_whose_weights_are_not_finite_is_not_written(make_policy, deploy, tmp_path):
    policy = make_policy()
    with torch.no_grad():
        policy.network.encoder[0].weight[0, 0] = torch.inf
    with pytest.raises(UserError, match=r"encoder\.0\.weight holds a number that is not finite"):
        deploy(policy)
    assert not list(tmp_path.iterdir())


def test_a_policy_that_saw_nothing_is_not_written(make_policy, deploy) -> None:
    policy = make_policy()
    policy.replica_statistics.count = 0
    with pytest.raises(UserError, match="no observation yet"):
        deploy(policy)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_file_with_a_flipped_bit_is_refused(file, data) -> None:
    content = file.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    copy = file.with_name("damaged.json")
    copy.write_bytes(bytes(damaged))
    refusal(copy)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.just(10**400),
        st.floats(),
        st.text(max_size=4),
    ),
    lambda child: st.one_of(st.lists(child, max_size=3), st.dictionaries(st.text(), child)),
    max_leaves=6,
)


def places(node, path=()):
    """Return the keys that lead to everything below a JSON value, of lists to the first entry."""
    inside = node.items() if isinstance(node, dict) else enumerate(node[:1])
    found = []
    for key, child in inside:
        found.append((*path, key))
        if isinstance(child, dict | list):
            found += places(child, (*path, key))
    return found


@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.data())
def test_whatever_a_sealed_file_says_it_is_refused_or_routes(file, data) -> None:
    tree = json.loads(file.read_text(encoding="utf-8"))
    del tree["sha256"]
    *above, last = data.draw(st.sampled_from(places(tree)))
    node = tree
    for key in above:
        node = node[key]
    if data.draw(st.booleans()):
        node[last] = data.draw(JSON)
    else:
        del node[last]
    copy = file.with_name("sealed.json")
    copy.write_bytes(sealed(json.dumps(tree, indent=2).encode(), "sha256"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # weights too large to multiply
            policy = RoutingPolicy.load(copy)
    except UserError:
        return
    features, common = len(policy.replica_features), len(policy.context_features)
    assert 0 <= policy.route(Snapshot(np.ones((3, features)), np.ones(common))) < 3
