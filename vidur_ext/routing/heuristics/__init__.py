"""Routing heuristics, the baselines and the teachers: one file each, called by the file's name.

A file's first docstring says the rule and its source. It defines one compiled function:

* ``score(seen: Seen) -> float``: how loaded a replica is; the lightest one wins, ties are broken
  at random. What it does not read of ``seen`` costs nothing.
* or ``score_all(seen: SeenAll, told: Thresholds, scores) -> None``: the same for rules that compare
  the replicas; it writes ``scores`` [R], infinite for who is out of the running.
* or ``choose(look, cluster, scores, dice) -> int``: the replica. ``look(cluster, replica)``
  returns a ``Seen``, ``scores`` float64 [R] is working memory, ``dice`` draws random numbers.

A rule with numbers that can be tuned has a section in ``config.routers``, called by its name, whose
keys stand in ``routing.thresholds`` too; ``score_all`` reads them as ``told.rule.key``.

Where it is true the file says ``USES_OUTPUT_LENGTHS = True`` (an oracle: no real router knows
them), ``CONTROL = True`` (deliberately bad: it must lose, and nobody should learn from it),
``READS_PREFIXES = True`` (it asks what of a prompt is found where, which a router knows only with
``observation.prefix_knowledge``) or ``READS_SESSIONS = True`` (it asks whose a request is).

Vidur's own ``random``, ``round_robin`` and ``lor`` are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from numba import literal_unroll

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.config.sections import HEURISTIC_NAMES
from vidur_ext.routing.comparing import SeenAll, see_all
from vidur_ext.routing.dice import Dice, lightest
from vidur_ext.routing.thresholds import Thresholds

Compiled = Callable[..., Any]


_KINDS = ("score", "score_all", "choose")


@dataclass(frozen=True)
class Heuristic:
    """``rule`` is the compiled function that its file defines, of one of the kinds above.

    number: what compiled code knows the heuristic by.
    """

    name: str
    number: int
    description: str
    kind: str
    rule: Compiled


def _load(number: int, name: str) -> Heuristic:
    module = import_module(f"{__name__}.{name}")
    kinds = [kind for kind in _KINDS if _defines(module, kind)]
    if len(kinds) != 1:
        raise TypeError(f"{module.__file__} must define one of {', '.join(_KINDS)}")
    assert module.__doc__, f"{module.__file__} must begin with its rule, as a docstring"
    [kind] = kinds
    return Heuristic(name, number, module.__doc__, kind, vars(module)[kind])


def _defines(module: ModuleType, name: str) -> bool:
    """Return whether a function is the module's own, not imported from another heuristic."""
    function = getattr(module, name, None)
    # With NUMBA_DISABLE_JIT=1, to step through it in a debugger, it is a plain function.
    plain = getattr(function, "py_func", function)
    return plain is not None and plain.__module__ == module.__name__


HEURISTICS = {name: _load(number, name) for number, name in enumerate(HEURISTIC_NAMES)}


def _of_kind(kind: str) -> tuple[tuple[int, Compiled], ...]:
    """Return the rules of a kind with their numbers.

    The number comes first: what begins with a function numba takes for a list of pointers.
    """
    return tuple((one.number, one.rule) for one in HEURISTICS.values() if one.kind == kind)


# Compiled functions contain what they call, and each is compiled as a whole: a tree of functions
# that ask one of two others compiles every rule once per level. numba writes these loops out.
_BY_SCORE, _BY_ALL_SCORES, _BY_CHOICE = map(_of_kind, _KINDS)
_COMPARE = tuple(number for number, _ in _BY_ALL_SCORES)
_CHOOSE = tuple(number for number, _ in _BY_CHOICE)


@compiled
def _score_each(number: int, look: Compiled, cluster: Any, scores: Floats) -> None:
    for rule in literal_unroll(_BY_SCORE):
        if rule[0] == number:
            for replica in range(len(scores)):
                scores[replica] = rule[1](look(cluster, replica))


@compiled
def _score_all(number: int, seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    for rule in literal_unroll(_BY_ALL_SCORES):
        if rule[0] == number:
            rule[1](seen, told, scores)


@compiled
def _choose(number: int, look: Compiled, cluster: Any, scores: Floats, dice: Dice) -> int:
    chosen = -1
    for rule in literal_unroll(_BY_CHOICE):
        if rule[0] == number:
            chosen = rule[1](look, cluster, scores, dice)
    return chosen


@compiled
def ask(
    number: int,
    look: Compiled,
    cluster: Any,
    told: Thresholds,
    table: Floats,
    scores: Floats,
    dice: Dice,
) -> int:
    """Return the replica that the heuristic of a number chooses.

    Args:
        look: ``look(cluster, replica)`` returns a ``Seen``.
        table, scores: working memory [len(Compared), R] and [R].
    """
    if number in _CHOOSE:
        return int(_choose(number, look, cluster, scores, dice))
    if number in _COMPARE:
        _score_all(number, see_all(look, cluster, table), told, scores)
    else:
        _score_each(number, look, cluster, scores)
    return lightest(scores, dice)
