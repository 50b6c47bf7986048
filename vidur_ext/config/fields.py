"""What the config's models say about their keys: which there are, and what each of them allows."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Location = Sequence[str | int]
"""Where something stands: names of keys and, in lists, positions from 0."""

_BOUNDS = {
    "ge": ">=",
    "gt": ">",
    "le": "<=",
    "lt": "<",
    "min_length": "of length >=",
    "pattern": "matching",
}
_TYPES = {int: "integer", float: "number", bool: "true or false", str: "text"}


def leaf_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted path, field) of every key that holds a value rather than a group."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if is_model(field.annotation):
            yield from leaf_fields(field.annotation, f"{path}.")
        else:
            yield path, field


def is_model(annotation: Any) -> typing.TypeGuard[type[BaseModel]]:
    """Return whether a type is an object with keys of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def declared(model: type[BaseModel], location: Location) -> Location:
    """Return a location without what pydantic adds to it: which type of several did not fit."""
    annotation: Any = model
    for depth, part in enumerate(location):
        if isinstance(part, str) and not is_model(annotation):
            return location[:depth]
        if is_model(annotation) and part not in annotation.model_fields:
            return location[: depth + 1]  # an unknown key
        annotation = type_at(model, location[: depth + 1])
    return location


def type_at(model: type[BaseModel], location: Location) -> Any:
    """Return the type declared at a location that exists."""
    annotation: Any = model
    for part in location:
        if isinstance(part, str):
            annotation = annotation.model_fields[part].annotation
        else:
            annotation = item_type(annotation)
    return annotation


def field_at(model: type[BaseModel], location: Location) -> FieldInfo:
    """Return the key at a location, or the one whose list it points into."""
    *above, last = location
    if isinstance(last, int):
        return field_at(model, above)
    field: FieldInfo = type_at(model, above).model_fields[last]
    return field


def item_type(annotation: Any) -> Any:
    """Return the type of a list's elements; the list may be optional."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = typing.get_args(annotation)[0]
    return typing.get_args(annotation)[0]


def path_text(location: Location) -> str:
    """Return a location as people write it: ``curriculum_learning.stages[0].qps_scale``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def choices(annotation: Any) -> tuple[Any, ...]:
    """Return the values of a ``Literal``; nothing for other types."""
    is_literal = typing.get_origin(annotation) is typing.Literal
    return typing.get_args(annotation) if is_literal else ()


def unit(field: FieldInfo) -> str:
    """Return the unit that ``key`` was given, or nothing."""
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def bounds(field: FieldInfo) -> list[str]:
    """Return a key's range as texts like ``>= 1``."""
    return [
        f"{sign} {_number(getattr(constraint, name))}"
        for constraint in field.metadata
        for name, sign in _BOUNDS.items()
        if getattr(constraint, name, None) is not None
    ]


def limits(field: FieldInfo) -> tuple[float, float]:
    """Return the lower and the upper end of a number's range, whether they belong to it or not."""
    low, high = (
        next(
            float(getattr(constraint, name))
            for constraint in field.metadata
            for name in names
            if getattr(constraint, name, None) is not None
        )
        for names in (("ge", "gt"), ("le", "lt"))
    )
    return low, high


def type_text(annotation: Any) -> str:
    """Return a type in a JSON user's words."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        several = "one of " if len(choices(annotation)) > 1 else ""
        return several + ", ".join(json.dumps(value) for value in choices(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(part) for part in typing.get_args(annotation))
    if origin is tuple:
        return f"list of {_plural(item_type(annotation))}"
    if annotation is type(None):
        return "null"
    return "object of keys" if is_model(annotation) else _TYPES[annotation]


def is_text(annotation: Any) -> bool:
    """Return whether any text is a value of this type."""
    return annotation is str or str in typing.get_args(annotation)


def is_choice(value: object, annotation: Any) -> bool:
    """Return whether a value is spelled out in a type, alone or beside other types."""
    parts = typing.get_args(annotation)
    return value in choices(annotation) or any(value in choices(part) for part in parts)


def _plural(annotation: Any) -> str:
    text = type_text(annotation)
    return text if choices(annotation) else text.replace("object", "objects") + "s"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
