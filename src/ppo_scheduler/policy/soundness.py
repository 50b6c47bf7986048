"""Whether what was read is a policy: every part, of its kind and shape, all numbers finite.

It asks nothing of the training at hand: a sound policy may still see other features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import ValidationError

from ppo_scheduler.config.learner_sections import ArchitectureSection
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.state import StateDict

STATISTICS = ("replica_statistics", "context_statistics")
_PARTS = ("schema", "architecture", "clip", "network", *STATISTICS)
_MOST = 2**62


class UnsoundPolicy(ValueError):
    """What was read is no policy; the text says what is wrong with it."""


def sound_policy(state: object) -> StateDict:
    """Return a policy's state as it is, of any version.

    Raises:
        UnsoundPolicy: it is none, or damaged.
    """
    missing = [name for name in _PARTS if not isinstance(state, dict) or name not in state]
    if not isinstance(state, dict) or missing:
        raise UnsoundPolicy(f"is no policy of this version, it lacks {', '.join(missing)}")
    problems = [*_problems_of_statistics(state), *_problems_of_kinds(state)]
    if not problems:
        problems = sorted(_problems_of_network(state))
    if problems:
        raise UnsoundPolicy(f"cannot be used: it {'; it '.join(problems)}")
    return state


def _problems_of_kinds(state: StateDict) -> Iterator[str]:
    if not isinstance(state["schema"], str):
        yield "has a schema that is no text"
    clip = state["clip"]
    if type(clip) not in (int, float) or not 0.0 < clip < math.inf:
        yield "has a clip that is no number above 0"
    try:
        ArchitectureSection.model_validate(state["architecture"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("architecture", *first["loc"]))
        yield f"has an unknown network ({where}: {first['msg']})"
    if not isinstance(state["network"], dict):
        yield "has a network that is no dict"


def _problems_of_statistics(state: StateDict) -> Iterator[str]:
    for part in STATISTICS:
        statistics = state[part]
        expected = ("count", "mean", "squares")
        if not isinstance(statistics, dict) or sorted(statistics) != sorted(expected):
            yield f"has {part} without {', '.join(expected)}"
            continue
        count, mean, squares = (statistics[name] for name in expected)
        if type(count) is not int or not 0 <= count < _MOST:
            yield f"has {part}.count that counts nothing"
        for name, values in (("mean", mean), ("squares", squares)):
            shape = mean.shape if isinstance(mean, torch.Tensor) and mean.ndim == 1 else None
            problem = _misfit(values, shape, torch.float64)
            if problem is not None:
                yield f"has {part}.{name} {problem}"
            elif name == "squares" and bool((values < 0.0).any()):
                yield f"has {part}.squares below 0"


def _problems_of_network(state: StateDict) -> Iterator[str]:
    replica, context = (len(state[part]["mean"]) for part in STATISTICS)
    architecture = ArchitectureSection.model_validate(state["architecture"])
    with torch.device("meta"):  # shapes without memory
        expected = ActorCritic(replica, context, architecture).state_dict()
    found = state["network"]
    yield from (f"lacks network.{name}" for name in expected if name not in found)
    yield from (f"has the unknown network.{name}" for name in found if name not in expected)
    for name, weight in expected.items():
        if name in found:
            problem = _misfit(found[name], weight.shape, torch.float32)
            if problem is not None:
                yield f"has network.{name} {problem}"


def _misfit(there: Any, shape: torch.Size | None, dtype: torch.dtype) -> str | None:
    if not isinstance(there, torch.Tensor):
        return "that is no tensor"
    if there.dtype is not dtype:
        return f"of {there.dtype}, not {dtype}"
    if there.shape != shape:
        wanted = "a list" if shape is None else list(shape)
        return f"of shape {list(there.shape)}, not {wanted}"
    return None if there.isfinite().all() else "with numbers that are not finite"
