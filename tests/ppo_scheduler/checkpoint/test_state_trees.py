"""What a checkpoint may hold comes back exactly; everything else is refused by name."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.checkpoint.tree import check_tree, dump, load
from ppo_scheduler.errors import UserError

HERE = Path("some.pt")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    size = int(np.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
    if dtype is torch.bool:
        content = bytes(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    else:
        content = draw(st.binary(min_size=size, max_size=size))
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


leaves = st.one_of(
    tensors(), st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.none()
)
nodes = st.recursive(
    leaves,
    lambda child: st.one_of(
        st.lists(child, max_size=3),
        st.tuples(child, child),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), child, max_size=3),
    ),
    max_leaves=12,
)
trees = st.dictionaries(st.text(max_size=5), nodes, max_size=4)


def exact(node: object) -> object:
    """Return a value that is equal only for nodes of the same types and the same bits."""
    if isinstance(node, dict):
        return "dict", [(type(key), key, exact(child)) for key, child in node.items()]
    if isinstance(node, list | tuple):
        return type(node), [exact(child) for child in node]
    if isinstance(node, torch.Tensor):
        raw = node.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return node.dtype, tuple(node.shape), raw
    return type(node), struct.pack("d", node) if isinstance(node, float) else node


@given(trees)
def test_random_trees_come_back_exactly(tree):
    assert exact(load(dump(tree), HERE)) == exact(tree)


def test_an_optimizer_and_a_learner_come_back_exactly(make_learner, make_task):
    learner, task = make_learner(), make_task()
    for _ in range(250):
        task.step(learner)
    state = learner.state_dict()
    assert state["learner"]["updater"]["adamw"]["steps"] > 0
    assert exact(load(dump(state), HERE)) == exact(state)


def test_a_view_is_saved_without_the_rest_of_its_storage():
    whole = torch.arange(1_000_000)
    data = dump({"rows": whole[10:12]})
    assert len(data) < 10_000
    assert torch.equal(load(data, HERE)["rows"], torch.tensor([10, 11]))


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"a": {"b": [1, np.float64(2)]}}, r"a\.b\[1\] is a numpy\.float64"),
        ({"a": (np.zeros(2),)}, r"a\[0\] is a numpy\.ndarray"),
        ({"a": {3: {1, 2}}}, r"a\[3\] is a builtins\.set"),
        ({"a": {(1, 2): 0}}, r"a has the key \(1, 2\)"),
        ({"a": {True: 0}}, r"a has the key True"),
        ({"net": torch.nn.Linear(1, 1).weight}, r"net is a torch\.nn\.parameter\.Parameter"),
        ({"net": torch.ones(1, requires_grad=True)}, "net is a tensor with gradient"),
        ({"net": torch.ones(2).to_sparse()}, "net is a tensor .* not dense"),
        ({"raw": b"bytes"}, r"raw is a builtins\.bytes"),
        ([1], "the root is not a dict"),
    ],
)
def test_what_cannot_be_saved_is_named_by_its_path(tree, where):
    with pytest.raises(TypeError, match=where):
        check_tree(tree)
    with pytest.raises(TypeError, match=where):
        dump(tree)


class Intruder:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("wrap", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, wrap):
    marker, file = tmp_path / "marker", tmp_path / "evil.pt"
    if wrap == "torch":
        torch.save({"weights": Intruder(marker)}, file)
    else:
        file.write_bytes(pickle.dumps({"weights": Intruder(marker)}, protocol=2))
    with pytest.raises(UserError, match=r"evil\.pt: refused"):
        load(file.read_bytes(), file)
    assert not marker.exists()
    if wrap == "pickle":
        pickle.loads(file.read_bytes())
        assert marker.exists(), "the intruder must be one that would have worked"


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_bytes_that_are_no_checkpoint_are_refused(data):
    with pytest.raises(UserError, match=r"some\.pt: refused"):
        load(data, HERE)


@pytest.mark.parametrize("content", [[1, 2], {"a": {1, 2}}, {"a": torch.float32}])
def test_safe_content_that_is_no_state_tree_is_refused(tmp_path, content):
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(UserError, match=r"other\.pt: not a state tree"):
        load(file.read_bytes(), file)
