"""What a state may hold comes back exactly; whatever else is read is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.state_file import NotAState, check_tree, dump, load

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
    assert exact(load(dump(tree))) == exact(tree)


def test_an_optimizer_and_a_learner_come_back_exactly(make_learner, make_task):
    learner, task = make_learner(), make_task()
    for _ in range(250):
        task.step(learner)
    state = learner.state_dict()
    assert state["learner"]["updater"]["adamw"]["steps"] > 0
    assert exact(load(dump(state))) == exact(state)


def test_a_view_is_saved_without_the_rest_of_its_storage():
    whole = torch.arange(1_000_000)
    data = dump({"rows": whole[10:12]})
    assert len(data) < 10_000
    assert torch.equal(load(data)["rows"], torch.tensor([10, 11]))


def cyclic():
    inner: dict[str, object] = {}
    inner["b"] = [inner]
    return {"a": inner}


def deep(levels: int):
    tree: dict[str, object] = {}
    for _ in range(levels):
        tree = {"d": tree}
    return tree


def doubling(levels: int):
    """Return a tree of a few hundred bytes with 2 ** levels leaves."""
    branch: list[object] = [1]
    for _ in range(levels):
        branch = [branch, branch]
    return {"a": branch}


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
        ({"net": torch.ones(1).expand(10**12)}, "net is a tensor .* not dense"),
        ({"net": torch.ones(2, device="meta")}, "net is a tensor .* not dense"),
        ({"net": torch.ones(2, dtype=torch.complex64)}, "net is a tensor .* not dense"),
        (cyclic(), r"a\.b\[0\] stands at two places"),
        ({"a": [shared := [1], shared]}, r"a\[1\] stands at two places"),
        (deep(3000), r"\.d is too deep"),
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
    with pytest.raises(NotAState, match=r"refused: .* Nothing in it was run"):
        load(file.read_bytes())
    assert not marker.exists()
    if wrap == "pickle":
        pickle.loads(file.read_bytes())
        assert marker.exists(), "the intruder must be one that would have worked"


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_bytes_that_are_no_checkpoint_are_refused(data):
    with pytest.raises(NotAState, match="refused"):
        load(data)


@pytest.mark.parametrize("content", [[1, 2], {"a": {1, 2}}, {"a": torch.float32}])
def test_safe_content_that_is_no_state_tree_is_refused(tmp_path, content):
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(NotAState, match="not a state tree"):
        load(file.read_bytes())


@pytest.mark.parametrize(
    "tree", [cyclic(), deep(300), doubling(100)], ids=["cycle", "deep", "2^100"]
)
def test_a_tree_without_end_is_refused_at_once(tree):
    file = io.BytesIO()
    torch.save(tree, file)
    with pytest.raises(NotAState, match=r"stands at two places|is too deep"):
        load(file.getvalue())


def rewritten(data: bytes, compression: int, change=lambda name, content: content) -> bytes:
    """Return the archive with every record written anew."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def test_a_bomb_is_refused_without_unpacking_it(monkeypatch):
    small = rewritten(dump({"zeros": torch.zeros(2_000_000)}), zipfile.ZIP_DEFLATED)
    assert len(small) < 20_000
    monkeypatch.setattr(torch, "load", None)  # not even asked
    with pytest.raises(NotAState, match="compressed"):
        load(small)


def test_records_that_share_their_bytes_are_refused():
    data = bytearray(dump({"one": torch.zeros(5000), "two": torch.ones(5000)}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        [first, second] = [i for i in archive.infolist() if "/data/" in i.filename]
    directory = data.rindex(second.filename.encode())
    data[directory - 46 + 42 : directory - 46 + 46] = struct.pack("<I", first.header_offset)
    with pytest.raises(NotAState, match=r"refused|damaged"):
        load(bytes(data))


STATE = {"weights": torch.linspace(0.0, 1.0, 300), "steps": [1, 2.5, None], "text": "abc"}
SAVED = dump(STATE)


@given(st.integers(0, len(SAVED) * 8 - 1))
def test_a_flipped_bit_is_refused_or_has_no_effect(bit):
    damaged = bytearray(SAVED)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        read = load(bytes(damaged))
    except NotAState:
        return
    assert exact(read) == exact(STATE)


@given(st.integers(0, len(SAVED) - 1))
def test_a_file_that_ends_early_is_refused(size):
    with pytest.raises(NotAState):
        load(SAVED[:size])


@given(st.binary(max_size=200), st.integers(0, len(SAVED)))
def test_strange_bytes_are_refused_or_have_no_effect(strange, place):
    try:
        read = load(SAVED[:place] + strange + SAVED[place + len(strange) :])
    except NotAState:
        return
    assert exact(read) == exact(STATE)
