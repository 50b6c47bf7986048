"""Smallest predicted latency of this request; output lengths are expected, not known."""

from ppo_scheduler.compiled import compiled
from vidur_ext.routing.view import Seen


@compiled
def score(seen: Seen) -> float:
    return float(seen.predicted.latency_s)
