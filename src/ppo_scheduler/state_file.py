"""State trees as bytes: what checkpoints and the files of policies hold.

Leaves are dense tensors, ints, floats, bools, strings and None; branches are dicts, lists and
tuples. Keys are strings, or ints as in the ``state_dict`` of a torch optimizer. Nothing else is
written, so reading never needs a pickle that may run code; and whatever is read is a stranger's.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

from ppo_scheduler.state import StateDict

_PLAIN = (int, float, bool, str, type(None))
_DEEPEST = 64


class NotAState(ValueError):
    """Bytes that hold no state tree, or are damaged; the text says why."""


def check_tree(tree: object) -> None:
    """Check that a tree can be saved and comes back exactly.

    Raises:
        TypeError: something in it cannot; the text says where. It is the error of the component
            whose ``state_dict`` made the tree, not of a user.
    """
    problem = _problem(tree)
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


def load(data: bytes) -> StateDict:
    """Return the tree of ``dump``'s bytes, its tensors on the CPU.

    Raises:
        NotAState: the bytes are damaged, hold no state tree, or would run code to be read.
    """
    _check_archive(data)
    try:
        tree: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # strange bytes make the reader fail in any way
        raise _refused(type(error).__name__) from error
    problem = _problem(tree)
    if problem is not None:
        raise NotAState(f"not a state tree: {problem}")
    state: StateDict = tree
    return state


def _check_archive(data: bytes) -> None:
    """Check the sums that torch writes and does not look at.

    What is compressed, or larger than the bytes, is none of ours: a small file may ask for any
    amount of memory that way.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise _refused("compressed")
            if sum(record.file_size for record in records) > len(data):
                raise _refused("larger than the file")
            broken = archive.testzip()
    except NotAState:
        raise
    except Exception as error:  # strange bytes make the reader fail in any way
        raise _refused(type(error).__name__) from error
    if broken is not None:
        raise NotAState("damaged: the content does not match its own checksums")


def _refused(why: str) -> NotAState:
    return NotAState(
        f"refused: it is damaged, or not a file of plain values and tensors ({why}). Nothing in "
        "it was run"
    )


def _problem(tree: object) -> str | None:
    if type(tree) is not dict:
        return "the root is not a dict"
    return next(_problems(tree, "", 0, set()), None)


def _problems(node: object, where: str, depth: int, seen: set[int]) -> Iterator[str]:
    """Yield what cannot be saved below ``node``. Types are compared exactly: numpy's float64 is
    a float by inheritance, yet comes back as nothing that safe loading accepts.

    Args:
        seen: branches so far. One that stands at two places may contain itself, or be met more
            often than any computer can count.
    """
    if type(node) in (dict, list, tuple) and node:
        if id(node) in seen or depth > _DEEPEST:
            yield f"{where} stands at two places" if id(node) in seen else f"{where} is too deep"
            return
        seen.add(id(node))
    if type(node) is dict:
        for key, child in node.items():
            if type(key) is str:
                yield from _problems(child, f"{where}.{key}" if where else key, depth + 1, seen)
            elif type(key) is int:
                yield from _problems(child, f"{where}[{key}]", depth + 1, seen)
            else:
                yield f"{where or 'the root'} has the key {key!r}; keys are str or int"
    elif type(node) is list or type(node) is tuple:
        for index, child in enumerate(node):
            yield from _problems(child, f"{where}[{index}]", depth + 1, seen)
    elif type(node) is torch.Tensor:
        if not _is_plain(node):
            yield f"{where} is a tensor with gradient or not dense; detach() it, make it dense"
    elif type(node) not in _PLAIN:
        kind = type(node)
        yield (
            f"{where} is a {kind.__module__}.{kind.__qualname__}; only dict, list, tuple, tensor, "
            "int, float, bool, str and None can be saved"
        )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether there is a number in memory for each element: some kinds only claim many."""
    if tensor.requires_grad or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return False
    if tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


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
