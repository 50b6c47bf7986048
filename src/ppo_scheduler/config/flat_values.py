"""Config values as the simulator's flat flags carry them.

A key whose type is no plain int, float, bool or text travels as JSON text.
"""

from __future__ import annotations

import json
from typing import Any

from ppo_scheduler.config.fields import Location, choices
from ppo_scheduler.config.section import Section
from ppo_scheduler.errors import UserError

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


def flag_texts(name: str, value: Any) -> list[str]:
    """Return the command line's words for one flag."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def _is_plain_text(annotation: Any) -> bool:
    return annotation is str or bool(choices(annotation))
