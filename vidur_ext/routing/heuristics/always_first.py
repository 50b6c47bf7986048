"""Everything to replica 0: a control that must lose."""

from typing import Any

from vidur_ext.compiled import compiled
from vidur_ext.routing.dice import Dice
from vidur_ext.routing.view import Floats

CONTROL = True


@compiled
def choose(look: Any, cluster: Any, scores: Floats, dice: Dice) -> int:
    return 0
