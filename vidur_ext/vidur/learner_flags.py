"""The learner's keys as flat flags of Vidur's kind: every key is one, none is written twice.

A key whose type is no plain int, float, bool or text travels as JSON text.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from vidur.config import BaseGlobalSchedulerConfig

from ppo_scheduler.config.section import Section
from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import Location, choices, leaf_fields
from vidur_ext.config.problems import describe_problems, join_problems
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.vidur.types import RoutingSchedulerType

SCHEDULER_FLAG_PREFIX = "p_p_o_global_scheduler_modular_config_"


def flag_type(annotation: Any) -> type:
    """Return the type of the flag that carries values of a type."""
    return annotation if annotation in (int, float, bool) else str


def to_flag(value: Any, annotation: Any) -> Any:
    """Return a key's value as its flag carries it."""
    kind = flag_type(annotation)
    if kind is not str or _is_plain_text(annotation):
        return kind(value)
    if isinstance(value, tuple):
        value = [item.model_dump() if isinstance(item, Section) else item for item in value]
    return json.dumps(value)


def from_flag(flat: str, carried: Any, annotation: Any) -> Any:
    """Return what ``to_flag`` was given, as JSON types.

    Raises:
        UserError: the flag should carry JSON and does not.
    """
    if flag_type(annotation) is not str or _is_plain_text(annotation):
        return carried
    try:
        return json.loads(carried)
    except ValueError as error:
        raise UserError(f"--{SCHEDULER_FLAG_PREFIX}{flat} {carried}: not JSON: {error}") from None


def flag_at(location: Location) -> str:
    """Return the flag that brings the value at a location of the learner's config."""
    if len(location) < 2:
        return f"flags --{SCHEDULER_FLAG_PREFIX}*"
    return f"--{SCHEDULER_FLAG_PREFIX}{location[0]}_{location[1]}"


def _is_plain_text(annotation: Any) -> bool:
    return annotation is str or bool(choices(annotation))


def learner_flags() -> Iterator[tuple[str, type, Any, str]]:
    """Yield (flat name, flag type, flag default, help) of every learner key."""
    for group, name, field in _keys():
        default = to_flag(field.default, field.annotation)
        yield f"{group}_{name}", flag_type(field.annotation), default, field.description or ""


def learner_config(values: Mapping[str, Any]) -> RouterConfig:
    """Build the learner's config from flat names; the inverse of ``learner_values``.

    Raises:
        UserError: naming every flag whose value is not allowed.
    """
    tree: dict[str, dict[str, Any]] = {}
    for group, name, field in _keys():
        flat = f"{group}_{name}"
        tree.setdefault(group, {})[name] = from_flag(flat, values[flat], field.annotation)
    try:
        return RouterConfig.model_validate_json(json.dumps(tree)).with_paths()
    except ValidationError as error:
        lines = describe_problems(error, RouterConfig, flag_at)
        raise UserError(join_problems(lines)) from None


def learner_values(config: RouterConfig) -> dict[str, Any]:
    """Return every learner key under its flat name, as ``learner_flags`` types it."""
    return {
        f"{group}_{name}": to_flag(getattr(getattr(config, group), name), field.annotation)
        for group, name, field in _keys()
    }


def _keys() -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield (group, key, field) of every learner key, in the order of declaration."""
    for path, field in leaf_fields(RouterConfig):
        group, name = path.split(".")
        yield group, name, field


def _field(name: str, kind: Any, default: Any, help_text: str) -> tuple[str, Any, Any]:
    return name, kind, dataclasses.field(default=default, metadata={"help": help_text})


def _optional_field(name: str, kind: Any, help_text: str) -> tuple[str, Any, Any]:
    # Vidur recognises optional flags by typing.Optional, not by "str | None".
    return name, Optional[kind], dataclasses.field(default=None, metadata={"help": help_text})  # noqa: UP045


PARALLEL_FLAGS = {
    "num_envs": (1, "Simulations that the policy decides for at once."),
    "num_shards": (8, "Parts of them whose gradients are computed alone."),
    "num_processes": (1, "Processes that train together."),
    "max_restarts": (3, "How often it goes on when others of them were lost."),
}
"""Flags of what is done side by side in a training, with their defaults."""

PPOGlobalSchedulerModularConfig: Any = dataclasses.make_dataclass(
    "PPOGlobalSchedulerModularConfig",
    [
        *(
            _field(name, flag_type, default, help_text)
            for name, flag_type, default, help_text in learner_flags()
        ),
        _field("engine", str, "compiled", "What simulates the training: compiled or vidur."),
        *(_field(name, int, default, text) for name, (default, text) in PARALLEL_FLAGS.items()),
        _field("routers", str, "{}", "What heuristics are told: JSON as in the config's group."),
        _optional_field("run_dir", str, "Folder of log, TensorBoard events and metrics."),
        _optional_field("pretrained_actor", str, "Warm-started policy to begin from."),
        _optional_field("load_checkpoint", str, "Checkpoint to resume from."),
        _optional_field("stop_at_requests", int, "End after this request, to be resumed."),
        _optional_field("lock", int, "Inherited handle of the checkpoint folder's lock."),
    ],
    bases=(BaseGlobalSchedulerConfig,),
    namespace={
        "get_type": staticmethod(lambda: RoutingSchedulerType.PPO_MODULAR),
        "__module__": __name__,
        "__doc__": "Flags of the global scheduler ``ppo_modular``.",
    },
)
