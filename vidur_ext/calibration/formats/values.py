"""Single values of a measurement file, checked; errors name file, place, and what was expected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.errors import UserError

_MOST_TOKENS = 2**31 - 1
_LATEST_S = 1e11
"""Clocks that count seconds stand at 1.8e9 in the year 2027; those that count less, beyond this."""
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Place:
    """Where a value stands: in a file, at a line and column or a JSON path."""

    path: Path
    where: str

    def error(self, text: str) -> UserError:
        """Return an error about the value."""
        return UserError(f"{self.path}, {self.where}: {text}")

    def wrong(self, expected: str, found: object) -> UserError:
        """Return the error about a value that is not what was expected."""
        shown = repr(found)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = f"{shown[:_SHOWN_CHARACTERS]}…"
        return self.error(f"expected {expected}, found {shown}")


def parsed(text: str) -> float | str:
    """Return the number that a field of a CSV holds, or the text if it holds none."""
    try:
        return float(text)
    except ValueError:
        return text


def _number(found: object) -> float:
    if isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return float(found)
        except OverflowError:  # an integer of hundreds of digits
            return math.inf
    return math.nan


def count(place: Place, found: object, least: int) -> int:
    """Return a number of tokens or requests of at least ``least``.

    Raises:
        UserError: it is no such integer.
    """
    value = _number(found)
    if not (least <= value <= _MOST_TOKENS and value.is_integer()):
        raise place.wrong(f"an integer from {least} to {_MOST_TOKENS}", found)
    return int(value)


def amount(place: Place, found: object, what: str) -> float:
    """Return a finite number above 0; ``what`` it should be is said in errors.

    Raises:
        UserError: it is no such number.
    """
    value = _number(found)
    if not (math.isfinite(value) and value > 0.0):
        raise place.wrong(f"{what} above 0", found)
    return value


def moment(place: Place, found: object) -> float:
    """Return a time in seconds on any clock.

    Raises:
        UserError: it is none, or in another unit.
    """
    value = _number(found)
    if not (math.isfinite(value) and value >= 0.0):
        raise place.wrong("a time in seconds, at least 0,", found)
    if value > _LATEST_S:
        raise place.wrong("a time in seconds (this is in ms or less: divide it)", found)
    return value
