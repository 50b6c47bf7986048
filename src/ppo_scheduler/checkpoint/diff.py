"""What is in a state tree, and in what two checkpoints differ: settings and other values, and
tensors bit by bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ppo_scheduler.state import StateDict

Where = tuple[str | int, ...]
"""Way to a leaf: keys of dicts, indices of lists and tuples."""


@dataclass(frozen=True)
class PartSummary:
    """How much of what a part of a tree holds."""

    name: str
    tensors: int
    numbers: int
    """Elements of all tensors."""
    tensor_bytes: int
    values: int
    """Leaves that are no tensors."""


def leaves(node: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Yield every leaf with the way to it; an empty branch counts as a leaf."""
    if isinstance(node, dict) and node:
        for key, child in node.items():
            yield from leaves(child, (*where, key))
    elif isinstance(node, list | tuple) and node:
        for index, child in enumerate(node):
            yield from leaves(child, (*where, index))
    else:
        yield where, node


def dotted(where: Where) -> str:
    """Return the name of a leaf for people: ``learner.optimizer.state[0].step``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in where)
    return text.removeprefix(".")


def summaries(tree: StateDict) -> list[PartSummary]:
    """Return a summary per part, in the order of the tree."""
    return [_summary(name, part) for name, part in tree.items()]


def _summary(name: str, part: Any) -> PartSummary:
    found = [leaf for _, leaf in leaves(part)]
    tensors = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
    return PartSummary(
        name,
        tensors=len(tensors),
        numbers=sum(tensor.numel() for tensor in tensors),
        tensor_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        values=len(found) - len(tensors),
    )


ABSENT = "(absent)"


@dataclass(frozen=True)
class LeafDifference:
    """Something that differs; ``left`` and ``right`` are JSON, or a tensor's type and shape."""

    name: str
    left: str
    right: str
    max_abs: float | None = None
    """Largest difference of two tensors of one shape (NaN where only one has a NaN); else None."""


@dataclass
class PartDiff:
    """How a part of the tree differs."""

    name: str
    equal_tensors: int = 0
    changed_tensors: list[LeafDifference] = field(default_factory=list)
    """Same shape and type, other bits."""
    reshaped_tensors: list[LeafDifference] = field(default_factory=list)
    """Another shape or type, or a tensor on one side only."""
    values: list[LeafDifference] = field(default_factory=list)
    """Leaves that are no tensors."""

    @property
    def equal(self) -> bool:
        return not (self.changed_tensors or self.reshaped_tensors or self.values)


def value_differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[LeafDifference]:
    """Return what differs among named plain values, in the order of ``left``, then ``right``."""
    return [
        LeafDifference(name, _text(left.get(name, ABSENT)), _text(right.get(name, ABSENT)))
        for name in {**left, **right}
        if not _same_value(left.get(name, ABSENT), right.get(name, ABSENT))
    ]


def part_diffs(left: StateDict, right: StateDict) -> list[PartDiff]:
    """Return how each part differs, for the parts of either tree."""
    return [
        _part_diff(name, left.get(name, ABSENT), right.get(name, ABSENT))
        for name in {**left, **right}
    ]


def _part_diff(name: str, left: Any, right: Any) -> PartDiff:
    ours: dict[Where, Any] = dict(leaves(left, (name,)))
    theirs: dict[Where, Any] = dict(leaves(right, (name,)))
    diff = PartDiff(name)
    for where in {**ours, **theirs}:
        one, two = ours.get(where, ABSENT), theirs.get(where, ABSENT)
        difference = LeafDifference(dotted(where), _text(one), _text(two))
        if not isinstance(one, Tensor) and not isinstance(two, Tensor):
            if not _same_value(one, two):
                diff.values.append(difference)
        elif not isinstance(one, Tensor) or not isinstance(two, Tensor) or not _alike(one, two):
            diff.reshaped_tensors.append(difference)
        elif _same_bits(one, two):
            diff.equal_tensors += 1
        else:
            diff.changed_tensors.append(replace(difference, max_abs=_largest(one, two)))
    return diff


def _alike(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and one.dtype == two.dtype


def _same_bits(one: Tensor, two: Tensor) -> bool:
    return torch.equal(_bits(one), _bits(two))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _largest(one: Tensor, two: Tensor) -> float:
    """Return the largest difference; where both are NaN, or both the same infinity, it is 0."""
    same = (one == two) | (one.isnan() & two.isnan())
    return float((one.double() - two.double()).abs().masked_fill(same, 0.0).max())


def _same_value(one: Any, two: Any) -> bool:
    """Exactly: 1 is not 1.0 and 0.0 is not -0.0, but NaN is NaN."""
    return type(one) is type(two) and repr(one) == repr(two)


def _text(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        return f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"
    return ABSENT if leaf is ABSENT else json.dumps(leaf, ensure_ascii=False)
