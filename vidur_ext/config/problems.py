"""From pydantic's errors to lines that name the key, its value, what is allowed and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from vidur_ext.config.fields import (
    Location,
    bounds,
    choices,
    declared,
    field_at,
    is_model,
    leaf_fields,
    path_text,
    type_at,
    type_text,
    unit,
)
from vidur_ext.config.names import similar

WhereGiven = Callable[[Location], str]
"""Says where the value at a location was given."""

_WHOLE = ("integer", "integer or null")
_SHOWN_CHARACTERS = 60
_MOST_SUGGESTIONS = 3


def describe_problems(
    error: ValidationError, model: type[BaseModel], origin: WhereGiven
) -> list[str]:
    """Return one line per problem: origin, path, value, what is allowed, the key's help.

    Args:
        model: the model that was validated.
        origin: says which file or command line a location comes from.
    """
    lines: dict[str, None] = {}  # one of each: a value that fits none of several types has several
    for problem in error.errors():
        if _follows_from_its_elements(problem, error):
            continue
        problem["loc"] = tuple(declared(model, problem["loc"]))
        where = origin(problem["loc"])
        if problem["type"] == "value_error":
            group = f"{path_text(problem['loc'])}: " if problem["loc"] else ""
            contradictions = str(problem["ctx"]["error"]).splitlines()
            lines |= {f"{where}: {group}{one}": None for one in contradictions}
        else:
            subject, complaint = _explain(problem, model)
            lines[f"{where}: {subject}: {complaint}"] = None
    return list(lines)


def join_problems(lines: Sequence[str]) -> str:
    """Return the lines as one message, counted if there are several."""
    if len(lines) == 1:
        return lines[0]
    return "\n".join([f"{len(lines)} problems:", *(f"  {line}" for line in lines)])


def _follows_from_its_elements(problem: Any, error: ValidationError) -> bool:
    """Return whether a list is called too short only because bad elements were not counted."""
    inside = any(other["loc"][:-1] == problem["loc"] for other in error.errors())
    return problem["type"] == "too_short" and inside


def _explain(problem: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Return what is wrong ("path = value") and why."""
    location, value = problem["loc"], problem["input"]
    subject = path_text(location) or "the config"
    if problem["type"] == "missing":
        return subject, f"is missing; it {_must_be(model, location)}"
    subject = f"{subject} = {_shown(value)}"
    if problem["type"] == "extra_forbidden":
        replaced = REPLACED.get(path_text(location))
        return subject, replaced or f"unknown key; {_meant(model, location)}"
    return subject, _must_be(model, location) + _meant_value(type_at(model, location), value)


CALLED_ELSEWHERE = {
    "batch_size": "ppo_config.minibatch_size",
    "checkpoint_every": "checkpointing.checkpoint_interval",
    "keep": "checkpointing.max_checkpoints",
    "keep_last": "checkpointing.max_checkpoints",
    "last_n": "checkpointing.max_checkpoints",
    "log_dir": "training.output_root",
    "lr": "ppo_config.learning_rate",
    "max_grad": "ppo_config.max_grad_norm",
    "model": "cluster.model_name",
    "n_envs": "parallel_training.num_envs",
    "n_epochs": "ppo_config.epochs",
    "n_steps": "ppo_config.rollout_len",
    "output_dir": "training.output_root",
    "resume": "checkpointing.resume_from_checkpoint",
    "resume_from": "checkpointing.resume_from_checkpoint",
    "save_dir": "checkpointing.checkpoint_dir",
    "save_freq": "checkpointing.checkpoint_interval",
    "save_interval": "checkpointing.checkpoint_interval",
    "save_steps": "checkpointing.checkpoint_interval",
    "save_total_limit": "checkpointing.max_checkpoints",
    "total_timesteps": "training.total_requests",
}
"""Our keys by the names that other trainers give them."""

REPLACED = {
    "ppo_config.gamma": "is replaced by reward_config.horizon_s, by the clock and not per "
    "decision: with a request every d seconds, a gamma is a horizon of d / (1 - gamma)",
}
"""What stands in place of the keys of earlier versions."""


def _must_be(model: type[BaseModel], location: Location) -> str:
    annotation = type_at(model, location)
    if is_model(annotation):
        return f"must be an object of keys: {', '.join(annotation.model_fields)}"
    field = field_at(model, location)
    first, *others = type_text(annotation).split(" or null")
    # The range belongs to the list or the number, not to one element of a list or to null.
    of_field = bounds(field) if isinstance(location[-1], str) else []
    allowed = " ".join([_with_article(first), " and ".join(of_field)]).rstrip()
    nullable = " or null" if others else ""
    in_unit = f", in {unit(field)}" if unit(field) else ""
    return f"must be {allowed}{nullable}{in_unit} ({field.description})"


def _with_article(noun: str) -> str:
    if noun.startswith(("integer", "object")):
        return f"an {noun}"
    return f"a {noun}" if noun.startswith(("number", "list")) else noun


def _meant(model: type[BaseModel], location: Location) -> str:
    """Return the sentence that leads from an unknown key to the one that was meant."""
    *above, name = location
    if (ours := CALLED_ELSEWHERE.get(str(name))) in dict(leaf_fields(model)):
        return _did_you_mean([str(ours)])
    siblings = list(type_at(model, above).model_fields)
    if near := similar(str(name), siblings):
        return _did_you_mean(path_text([*above, sibling]) for sibling in near[:1])
    paths = [path for path, _ in leaf_fields(model)]
    names = similar(str(name), {path.rpartition(".")[2] for path in paths})
    elsewhere = [path for path in paths if path.rpartition(".")[2] in names[:1]]
    if elsewhere:
        return _did_you_mean(elsewhere[:_MOST_SUGGESTIONS])
    return f"{path_text(above) or 'the config'} has {', '.join(siblings)}"


def _meant_value(annotation: Any, value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and type_text(annotation) in _WHOLE:
        return f"; write {int(value)}"
    near = similar(value, choices(annotation)) if isinstance(value, str) else []
    return f"; {_did_you_mean(json.dumps(text) for text in near[:1])}" if near else ""


def _did_you_mean(candidates: Iterable[str]) -> str:
    return f"did you mean {' or '.join(candidates)}?"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
