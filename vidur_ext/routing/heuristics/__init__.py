"""Routing heuristics, the baselines and the teachers: one file each, called by the file's name.

A file's first docstring says the rule and its source. It defines one compiled function:

* ``score(seen: Seen) -> float``: how loaded a replica is; the lightest one wins, ties are broken
  at random. What it does not read of ``seen`` costs nothing.
* or ``choose(look, cluster, scores, dice) -> int``: the replica. ``look(cluster, replica)`` returns
  a ``Seen``, ``scores`` float64 [R] is working memory, ``dice`` draws random numbers.

Where it is true the file says ``USES_OUTPUT_LENGTHS = True`` (an oracle: no real router knows them)
or ``CONTROL = True`` (deliberately bad: it must lose, and nobody should learn from it).

Vidur's own ``random``, ``round_robin`` and ``lor`` are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vidur_ext.compiled import compiled
from vidur_ext.config.sections import HEURISTIC_NAMES
from vidur_ext.routing.dice import Dice, lightest
from vidur_ext.routing.view import Floats

Function = Callable[..., Any]


@dataclass(frozen=True)
class Heuristic:
    """``number`` is what compiled code knows it by, ``choose`` is compiled."""

    name: str
    number: int
    description: str
    choose: Function


def _by_score(score: Function) -> Function:
    """Return the rule that takes the replica with the smallest score."""

    @compiled
    def choose(look: Function, cluster: Any, scores: Floats, dice: Dice) -> int:
        for replica in range(len(scores)):
            scores[replica] = score(look(cluster, replica))
        return lightest(scores, dice)

    return choose


def _load(number: int, name: str) -> Heuristic:
    module = import_module(f"{__name__}.{name}")
    if hasattr(module, "score") and not hasattr(module, "choose"):
        own = _by_score(module.score)
    elif hasattr(module, "choose"):
        own = module.choose
    else:
        raise TypeError(f"{module.__file__} must define score or choose")
    assert module.__doc__, f"{module.__file__} must begin with the rule as its docstring"
    return Heuristic(name, number, module.__doc__, own)


HEURISTICS = {name: _load(number, name) for number, name in enumerate(HEURISTIC_NAMES)}


@compiled
def _unknown(number: int, look: Function, cluster: Any, scores: Floats, dice: Dice) -> int:
    if number >= 0:
        raise ValueError("there is no heuristic of this number")
    return -1


def _either(heuristic: Heuristic, others: Function) -> Function:
    """Return a compiled function that asks this heuristic for its number, else the others."""
    own_number, own_choice = heuristic.number, heuristic.choose

    @compiled
    def choose(number: int, look: Function, cluster: Any, scores: Floats, dice: Dice) -> int:
        if number == own_number:
            return int(own_choice(look, cluster, scores, dice))
        return int(others(number, look, cluster, scores, dice))

    return choose


def _all() -> Function:
    choose: Function = _unknown
    for heuristic in HEURISTICS.values():
        choose = _either(heuristic, choose)
    return choose


choose = _all()
"""Compiled: ``choose(number, look, cluster, scores, dice)`` asks the heuristic of this number."""
