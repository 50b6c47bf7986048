"""Named columns: what stands where in an array, said once, beside its unit and its meaning.

Numba takes the members of an ``IntEnum`` for the constants they are.
"""

from __future__ import annotations

from collections import namedtuple
from enum import IntEnum
from typing import Any


class Column(IntEnum):
    """One class per array and axis. Members are numbered in the order in which they are written.

    A member is written as its unit and its meaning, ``WAITING = "requests", "without KV blocks"``.
    """

    unit: str
    meaning: str

    def __new__(cls, unit: str, meaning: str) -> Column:
        column = int.__new__(cls, len(cls.__members__))
        column._value_ = len(cls.__members__)
        column.unit = unit
        column.meaning = meaning
        return column

    @property
    def label(self) -> str:
        """The name in lower case: what the column is called outside of code."""
        return self.name.lower()


def record(name: str, columns: type[Column]) -> Any:
    """Return a class of named tuples: one number for each column, under its label.

    Compiled code reads and writes the numbers by name, and those that nobody reads cost nothing.
    """
    return namedtuple(name, [column.label for column in columns])
