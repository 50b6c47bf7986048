"""What a tree is made of, and in what two trees differ."""

from __future__ import annotations

import copy
import json
import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.checkpoint.diff import dotted, leaves, part_diffs, summaries, value_differences

floats = st.floats(width=32)
trees = st.recursive(
    st.one_of(
        st.integers(-3, 3),
        floats,
        st.none(),
        st.text(max_size=3),
        st.lists(floats, max_size=3).map(torch.tensor),
    ),
    lambda child: st.one_of(
        st.lists(child, max_size=3),
        st.dictionaries(st.text("ab.", max_size=2), child, max_size=3),
    ),
    max_leaves=8,
)
states = st.dictionaries(st.sampled_from(["learner", "rollout", "metrics"]), trees, max_size=3)


def tree():
    return {
        "learner": {"w": torch.zeros(2, 3), "layers": [{"b": torch.ones(4)}], "counters": {"n": 1}},
        "rollout": {"log": [torch.arange(5)], "rate": 0.5, "none": None},
    }


def only(diffs):
    [one] = [diff for diff in diffs if not diff.equal]
    return one


def test_leaves_are_named_by_their_way():
    names = [dotted(where) for where, _ in leaves(tree())]
    assert names == [
        "learner.w",
        "learner.layers[0].b",
        "learner.counters.n",
        "rollout.log[0]",
        "rollout.rate",
        "rollout.none",
    ]


def test_a_summary_counts_tensors_numbers_bytes_and_the_rest():
    learner, rollout = summaries(tree())
    assert (learner.name, learner.tensors, learner.numbers) == ("learner", 2, 10)
    assert (learner.tensor_bytes, learner.values) == (40, 1)
    assert (rollout.tensors, rollout.numbers, rollout.tensor_bytes, rollout.values) == (1, 5, 40, 2)


@given(states)
def test_a_tree_is_equal_to_its_copy(state):
    other = copy.deepcopy(state)
    assert all(diff.equal for diff in part_diffs(state, other))


@given(states, states)
def test_differences_do_not_depend_on_the_order_of_the_two(one, two):
    there = {diff.name: diff for diff in part_diffs(one, two)}
    back = {diff.name: diff for diff in part_diffs(two, one)}
    assert there.keys() == back.keys()
    for name, diff in there.items():
        assert diff.equal == back[name].equal
        assert diff.equal_tensors == back[name].equal_tensors
        swapped = {(d.name, d.right, d.left) for d in back[name].values}
        assert {(d.name, d.left, d.right) for d in diff.values} == swapped


def test_a_changed_tensor_tells_its_largest_difference():
    changed = tree()
    changed["learner"]["w"][1, 2] = -0.25
    diff = only(part_diffs(tree(), changed))
    assert (diff.name, diff.equal_tensors) == ("learner", 1)
    [one] = diff.changed_tensors
    assert (one.name, one.max_abs, one.left) == ("learner.w", 0.25, "float32 [2, 3]")


def test_one_bit_is_a_difference_even_if_the_numbers_are_equal():
    diff = only(part_diffs({"p": {"w": torch.tensor([0.0])}}, {"p": {"w": torch.tensor([-0.0])}}))
    assert diff.changed_tensors[0].max_abs == 0.0


def test_nan_at_the_same_place_does_not_hide_the_largest_difference():
    one = torch.tensor([math.nan, math.inf, 1.0])
    assert part_diffs({"p": one}, {"p": one.clone()})[0].equal
    two = torch.tensor([math.nan, math.inf, 3.0])
    assert only(part_diffs({"p": one}, {"p": two})).changed_tensors[0].max_abs == 2.0
    three = torch.tensor([0.0, math.inf, 3.0])
    assert math.isnan(only(part_diffs({"p": one}, {"p": three})).changed_tensors[0].max_abs)


def test_another_shape_type_or_side_is_told_apart_from_another_number():
    other = tree()
    other["learner"]["w"] = torch.zeros(3, 2)
    other["learner"]["layers"][0]["b"] = torch.ones(4, dtype=torch.float64)
    other["learner"]["extra"] = torch.zeros(1)
    diff = only(part_diffs(tree(), other))
    assert diff.changed_tensors == []
    assert {(d.name, d.left, d.right) for d in diff.reshaped_tensors} == {
        ("learner.w", "float32 [2, 3]", "float32 [3, 2]"),
        ("learner.layers[0].b", "float32 [4]", "float64 [4]"),
        ("learner.extra", "(absent)", "float32 [1]"),
    }


def test_values_are_compared_exactly_and_shown_as_json():
    other = tree()
    other["learner"]["counters"]["n"] = 1.0
    other["rollout"]["none"] = False
    del other["rollout"]["rate"]
    learner, rollout = part_diffs(tree(), other)
    assert [(d.name, d.left, d.right) for d in learner.values] == [
        ("learner.counters.n", "1", "1.0")
    ]
    assert {(d.name, d.left, d.right) for d in rollout.values} == {
        ("rollout.rate", "0.5", "(absent)"),
        ("rollout.none", "null", "false"),
    }


def test_a_part_of_one_side_only_is_a_difference():
    other = tree()
    del other["rollout"]
    diff = only(part_diffs(tree(), other))
    assert diff.name == "rollout"
    assert [d.name for d in diff.reshaped_tensors] == ["rollout.log[0]"]


def test_settings_are_compared_by_name():
    one = {"a": 1, "b": [0.5, None], "c": "x"}
    two = {"a": 1, "b": [0.5, 2], "d": True}
    assert [(d.name, d.left, d.right) for d in value_differences(one, two)] == [
        ("b", "[0.5, null]", "[0.5, 2]"),
        ("c", '"x"', "(absent)"),
        ("d", "(absent)", "true"),
    ]
    assert value_differences(one, json.loads(json.dumps(one))) == []
