"""What every config section shares: strictness, one way to declare a key, and what stands for
something else in paths (``~/outputs/${exp_name}/checkpoints``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """A group of keys. Unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _texts_are_printable(cls, value: Any) -> Any:
        """Refuse what no name of a file or project has, and no terminal should be sent."""
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{value!a} is no text that can be printed: use other characters")
        return value


def key(default: Any, help: str, *, unit: str = "", **bounds: Any) -> Any:
    """Declare one key: its default, one line of help, its unit and its range.

    ``bounds`` are pydantic's own constraints (``ge``, ``gt``, ``le``, ``lt``, ``min_length``).
    """
    return Field(default=default, description=help, json_schema_extra={"unit": unit}, **bounds)


ROOT_VARIABLES = ("exp_name", "seed")
"""What ``training.output_root`` may contain."""
VARIABLES = (*ROOT_VARIABLES, "output_root")
"""What every other path may contain."""

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def expand(path: str, values: Mapping[str, object]) -> str:
    """Return ``path`` with every ``${name}`` replaced; a path without any stays as it is.

    Raises:
        ValueError: it has another variable.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            known = ", ".join(f"${{{name}}}" for name in values)
            raise ValueError(f"there is no variable ${{{name}}}; there are {known}")
        return str(values[name])

    return _VARIABLE.sub(value, path)


def checked(path: str, known: Iterable[str]) -> str:
    """Return ``path`` with the home folder for its ``~``.

    Raises:
        ValueError: it has a variable that is not ``known``.
    """
    expand(path, dict.fromkeys(known, ""))
    return at_home(path)


def at_home(path: str) -> str:
    """Return ``path`` with the home folder for a ``~`` at its beginning, as shells replace it."""
    return os.path.expanduser(path)
