"""A copy of a state tree that further training does not change."""

from __future__ import annotations

from typing import Any

import torch

from ppo_scheduler.state import StateDict


def snapshot(tree: StateDict) -> StateDict:
    """Return the tree with all tensors copied."""
    copy: StateDict = _copied(tree)
    return copy


def _copied(node: Any) -> Any:
    if type(node) is dict:
        return {key: _copied(child) for key, child in node.items()}
    if type(node) is list or type(node) is tuple:
        return type(node)(_copied(child) for child in node)
    return node.clone() if type(node) is torch.Tensor else node
