"""Whatever stands in the file of a policy, a gateway's router is refused in words, or routes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from ppo_scheduler.sealed_json import sealed
from vidur_ext.gateway.router import ClusterRouter

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.one_of(st.integers(), st.floats()), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@pytest.fixture
def tree(make_config, exported):
    path = exported(make_config())
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["sha256"]
    return path, document


def rewritten(path: Path, document: dict) -> Path:
    copy = path.with_name("strange.json")
    copy.write_bytes(sealed(json.dumps(document, indent=2).encode(), "sha256"))
    return copy


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("block_size",), 0),
        (("output_count",), 0.0),
        (("prefill_tokens",), -1.0),
        (("replicas", 0, "iteration_s"), []),
        (("replicas", 0, "iteration_s"), [-1.0]),
        (("replicas", 0, "rates"), {}),
        (("replicas",), []),
        (("observation", "queue_slots"), 10**9),
        (("trained",), [1]),
    ],
)
def test_numbers_that_no_cluster_has_are_refused(tree, keys, value):
    path, document = tree
    node = document["origin"]
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    with pytest.raises(UserError, match="does not say how its features are computed"):
        ClusterRouter.load(rewritten(path, document))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_the_origin_says_it_is_refused_or_taken(tree, data):
    path, document = tree
    document = json.loads(json.dumps(document))
    node = document["origin"]
    key = data.draw(st.sampled_from(sorted(node)))
    if isinstance(node[key], dict) and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node)))
    node[key] = data.draw(VALUES)
    try:
        router = ClusterRouter.load(rewritten(path, document))
    except UserError:
        return
    assert router.num_replicas == len(document["origin"]["replicas"])
