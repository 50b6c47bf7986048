"""The one with fewer requests of two replicas drawn at random (Mitzenmacher 2001)."""

from typing import Any

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.dice import Dice, draw
from vidur_ext.routing.heuristics.least_outstanding import score


@compiled
def choose(look: Any, cluster: Any, scores: Floats, dice: Dice) -> int:
    """Draw two as NumPy's ``Generator.choice`` does: Floyd's sampling, then a shuffle."""
    count = len(scores)
    if count == 1:
        return 0
    one, two = draw(dice, count - 2), draw(dice, count - 1)
    if one == two:
        two = count - 1
    if draw(dice, 1) == 0:
        one, two = two, one
    left, right = score(look(cluster, one)), score(look(cluster, two))
    if left == right:
        return one if draw(dice, 1) == 0 else two
    return one if left < right else two
