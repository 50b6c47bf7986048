"""The content of a checkpoint: a tree of plain values and tensors, and its bytes.

Leaves are dense tensors, ints, floats, bools, strings and None; branches are dicts, lists and
tuples. Keys are strings, or ints as in the ``state_dict`` of a torch optimizer. Nothing else is
written, so reading never needs a pickle that may run code.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ppo_scheduler.checkpoint.manifest import UnusableCheckpoint
from ppo_scheduler.state import StateDict

_PLAIN = (int, float, bool, str, type(None))


def check_tree(tree: object) -> None:
    """Check that a tree can be saved and comes back exactly.

    Raises:
        TypeError: something in it cannot; the text says where. It is the error of the component
            whose ``state_dict`` made the tree, not of a user.
    """
    problem = next(_problems(tree, ""), None) if type(tree) is dict else "the root is not a dict"
    if problem is not None:
        raise TypeError(f"not a state tree: {problem}")


def dump(tree: StateDict) -> bytes:
    """Return the bytes of a tree.

    Raises:
        TypeError: as ``check_tree``.
    """
    check_tree(tree)
    file = io.BytesIO()
    torch.save(_with_own_storages(tree), file)
    return file.getvalue()


def load(data: bytes, path: Path) -> StateDict:
    """Return the tree of ``dump``'s bytes, its tensors on the CPU; ``path`` is for the error.

    Raises:
        UnusableCheckpoint: the bytes hold no state tree, or would run code to be read.
    """
    try:
        tree: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the reader fail in any way
        raise UnusableCheckpoint(
            path,
            f"refused: it is damaged, or not a checkpoint of plain values and tensors "
            f"({type(error).__name__}). Nothing in it was run",
        ) from error
    try:
        check_tree(tree)
    except TypeError as error:
        raise UnusableCheckpoint(path, str(error)) from error
    state: StateDict = tree
    return state


def _problems(node: object, where: str) -> Iterator[str]:
    """Yield what cannot be saved below ``node``. Types are compared exactly: numpy's float64 is
    a float by inheritance, yet comes back as nothing that safe loading accepts."""
    if type(node) is dict:
        for key, child in node.items():
            if type(key) is str:
                yield from _problems(child, f"{where}.{key}" if where else key)
            elif type(key) is int:
                yield from _problems(child, f"{where}[{key}]")
            else:
                yield f"{where or 'the root'} has the key {key!r}; keys are str or int"
    elif type(node) is list or type(node) is tuple:
        for index, child in enumerate(node):
            yield from _problems(child, f"{where}[{index}]")
    elif type(node) is torch.Tensor:
        if node.requires_grad or node.layout is not torch.strided:
            yield f"{where} is a tensor with gradient or not dense; detach() it, make it dense"
    elif type(node) not in _PLAIN:
        kind = type(node)
        yield (
            f"{where} is a {kind.__module__}.{kind.__qualname__}; only dict, list, tuple, tensor, "
            "int, float, bool, str and None can be saved"
        )


def _with_own_storages(node: Any) -> Any:
    """Return the tree with views cut loose: torch saves a view together with all it looks into."""
    if type(node) is dict:
        return {key: _with_own_storages(child) for key, child in node.items()}
    if type(node) is list or type(node) is tuple:
        return type(node)(_with_own_storages(child) for child in node)
    if type(node) is torch.Tensor:
        own = node.numel() * node.element_size()
        return node if node.untyped_storage().nbytes() == own else node.clone()
    return node
