"""The one state protocol: whatever changes while training can be saved and restored.

A state is a tree of dicts, lists and tuples whose leaves are torch tensors, ints, floats, bools,
strings or None - what ``torch.load(weights_only=True)`` accepts - so that a checkpoint is the tree
of all states and never needs a pickle.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

StateDict = dict[str, Any]


class Stateful(Protocol):
    """Anything whose state belongs into a checkpoint."""

    def state_dict(self) -> StateDict: ...

    def load_state_dict(self, state: StateDict) -> None: ...


def rng_state(rng: np.random.Generator) -> StateDict:
    """Return a PCG64 generator's position. Its 128-bit numbers travel as decimal strings."""
    state: StateDict = dict(rng.bit_generator.state)
    return {
        "bit_generator": state["bit_generator"],
        "state": str(state["state"]["state"]),
        "inc": str(state["state"]["inc"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def load_rng_state(rng: np.random.Generator, state: StateDict) -> None:
    """Put a PCG64 generator where ``rng_state`` found one."""
    rng.bit_generator.state = {
        "bit_generator": state["bit_generator"],
        "state": {"state": int(state["state"]), "inc": int(state["inc"])},
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }


def snapshot(tree: StateDict) -> StateDict:
    """Return a copy of the tree, tensors included, that further training does not change."""
    copy: StateDict = _copied(tree)
    return copy


def _copied(node: Any) -> Any:
    if type(node) is dict:
        return {key: _copied(child) for key, child in node.items()}
    if type(node) is list or type(node) is tuple:
        return type(node)(_copied(child) for child in node)
    # Of a state's leaves tensors alone can change. Their type is not asked: torch takes a second.
    clone = getattr(node, "clone", None)
    return node if clone is None else clone()
