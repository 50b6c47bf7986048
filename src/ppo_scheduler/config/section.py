"""What every config section shares: strictness, and one way to declare a key."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A group of keys. Unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )


def key(default: Any, help: str, *, unit: str = "", **bounds: Any) -> Any:
    """Declare one key: its default, one line of help, its unit and its range.

    ``bounds`` are pydantic's own constraints (``ge``, ``gt``, ``le``, ``lt``, ``min_length``).
    """
    return Field(default=default, description=help, json_schema_extra={"unit": unit}, **bounds)
