"""What a state tree is made of: its leaves by name, and a summary of each part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

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
