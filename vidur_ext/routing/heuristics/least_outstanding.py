"""Fewest requests, waiting or running."""

from ppo_scheduler.compiled import compiled
from vidur_ext.routing.view import Seen


@compiled
def score(seen: Seen) -> float:
    return float(seen.replica.waiting + seen.replica.running)
