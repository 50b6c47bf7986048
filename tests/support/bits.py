"""What a state or checkpoint holds, in a form that compares bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def bits(tree: Any) -> dict[str, object]:
    """Return every leaf of a tree by its place, without what the clock decides."""
    return dict(leaves(tree))


def leaves(tree: Any, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield the places of a tree and what is there, NaNs included."""
    if place == "metrics.history":
        kept = [i for i, name in enumerate(tree["columns"]) if not clocked(name)]
        tree = {**tree, "values": tree["values"][:, kept].contiguous()}
    if isinstance(tree, torch.Tensor):
        yield place, (tree.dtype, tuple(tree.shape), tree.contiguous().numpy().tobytes())
    elif isinstance(tree, (dict, list, tuple)):
        for name, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(branch, f"{place}.{name}" if place else str(name))
    else:
        yield place, (type(tree), repr(tree))


def clocked(name: str) -> bool:
    """Return whether a scalar is a speed or a duration."""
    return name.startswith("Speed/")
