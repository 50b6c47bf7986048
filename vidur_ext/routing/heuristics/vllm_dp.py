"""The rule of vLLM's internal data-parallel load balancer: 4 * waiting + running requests."""

from ppo_scheduler.compiled import compiled
from vidur_ext.routing.view import Seen

WAITING_WEIGHT = 4.0


@compiled
def score(seen: Seen) -> float:
    return float(WAITING_WEIGHT * seen.replica.waiting + seen.replica.running)
