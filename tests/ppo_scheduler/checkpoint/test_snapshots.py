"""A snapshot is the state of a moment: nothing that happens later reaches it."""

from __future__ import annotations

import torch

from ppo_scheduler.state import snapshot
from ppo_scheduler.state_file import dump


def test_later_changes_of_any_branch_or_leaf_do_not_reach_it():
    weights, in_list, in_tuple = torch.zeros(3), torch.zeros(2), torch.zeros(1)
    tree = {"net": {"w": weights}, "list": [1, in_list], "tuple": (in_tuple, 2), 3: None}
    copy = snapshot(tree)
    before = dump(copy)
    for tensor in (weights, in_list, in_tuple):
        tensor += 1.0
    tree["net"]["more"] = 1
    tree["list"].append(2)
    del tree[3]
    assert dump(copy) == before
    assert dump(tree) != before


def test_it_has_the_types_and_the_order_of_the_tree():
    tree = {"b": (1, [2.5, None]), "a": {"x": torch.arange(3), 7: True}}
    copy = snapshot(tree)
    assert list(copy) == ["b", "a"]
    assert copy["b"] == (1, [2.5, None])
    assert type(copy["b"]) is tuple
    assert copy["a"][7] is True
    assert torch.equal(copy["a"]["x"], torch.arange(3))
    assert copy["a"]["x"].dtype is torch.int64


def test_a_training_that_goes_on_changes_its_state_but_not_the_snapshot(make_learner, make_task):
    learner, task = make_learner(), make_task()
    for _ in range(150):
        task.step(learner)
    copy = snapshot(learner.state_dict())
    before = dump(copy)
    assert before == dump(learner.state_dict())
    for _ in range(100):
        task.step(learner)
    assert dump(copy) == before
    assert dump(learner.state_dict()) != before
