"""Least remaining work in seconds, true output lengths known."""

from ppo_scheduler.compiled import compiled
from vidur_ext.routing.view import Seen

USES_OUTPUT_LENGTHS = True


@compiled
def score(seen: Seen) -> float:
    return float(seen.predicted.remaining_work_s)
