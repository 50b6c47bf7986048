"""Variables in the paths of a config: ``outputs/${exp_name}/checkpoints``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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
    """Return ``path`` as it is.

    Raises:
        ValueError: it has a variable that is not ``known``.
    """
    expand(path, dict.fromkeys(known, ""))
    return path
