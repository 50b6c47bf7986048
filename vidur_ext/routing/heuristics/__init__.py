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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from ppo_scheduler.observation import Floats
from vidur_ext.compiled import compiled
from vidur_ext.config.sections import HEURISTIC_NAMES
from vidur_ext.routing.dice import Dice, lightest

Compiled = Callable[..., Any]


@dataclass(frozen=True)
class Heuristic:
    """``ask`` is compiled: ``ask(number, look, cluster, scores, dice)`` returns the replica.

    number: what compiled code knows the heuristic by.
    """

    name: str
    number: int
    description: str
    ask: Compiled


def _by_score(score: Compiled) -> Compiled:
    """Return the rule that takes the replica with the smallest score."""

    @compiled
    def ask(number: int, look: Compiled, cluster: Any, scores: Floats, dice: Dice) -> int:
        for replica in range(len(scores)):
            scores[replica] = score(look(cluster, replica))
        return lightest(scores, dice)

    return ask


def _by_choice(choose: Compiled) -> Compiled:
    @compiled
    def ask(number: int, look: Compiled, cluster: Any, scores: Floats, dice: Dice) -> int:
        return int(choose(look, cluster, scores, dice))

    return ask


def _load(number: int, name: str) -> Heuristic:
    module = import_module(f"{__name__}.{name}")
    rules = {"score": _by_score, "choose": _by_choice}
    own = [rule(vars(module)[kind]) for kind, rule in rules.items() if _defines(module, kind)]
    if len(own) != 1:
        raise TypeError(f"{module.__file__} must define either score or choose")
    assert module.__doc__, f"{module.__file__} must begin with its rule, as a docstring"
    return Heuristic(name, number, module.__doc__, own[0])


def _defines(module: ModuleType, name: str) -> bool:
    """Return whether a function is the module's own, not imported from another heuristic."""
    function = getattr(module, name, None)
    # With NUMBA_DISABLE_JIT=1, to step through it in a debugger, it is a plain function.
    plain = getattr(function, "py_func", function)
    return plain is not None and plain.__module__ == module.__name__


HEURISTICS = {name: _load(number, name) for number, name in enumerate(HEURISTIC_NAMES)}


def _among(heuristics: Sequence[Heuristic]) -> Compiled:
    """Return a compiled function that asks the heuristic of a number.

    By halves: each compiled function contains all it calls, and is compiled as a whole.
    """
    if len(heuristics) == 1:
        return heuristics[0].ask
    middle = len(heuristics) // 2
    first_of_others = heuristics[middle].number
    these, others = _among(heuristics[:middle]), _among(heuristics[middle:])

    @compiled
    def ask(number: int, look: Compiled, cluster: Any, scores: Floats, dice: Dice) -> int:
        if number < first_of_others:
            return int(these(number, look, cluster, scores, dice))
        return int(others(number, look, cluster, scores, dice))

    return ask


ask = _among(tuple(HEURISTICS.values()))
"""Compiled: ``ask(number, look, cluster, scores, dice)`` asks the heuristic of this number."""
