"""The first replica in the order of a session's hash that is not too full.

Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018): with the arriving
request, no replica gets more than ceil(c * mean) requests, waiting or running; c is 1.25. The order
and the sessions are those of ``session_hash``.
"""

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import SeenAll, requests
from vidur_ext.routing.hashing import order_by_hash
from vidur_ext.routing.thresholds import Thresholds

READS_SESSIONS = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    count = 1.0
    for replica in range(len(scores)):
        count += requests(seen, replica)
    most = math.ceil(told.bounded_hash.load_factor * count / len(scores))
    order_by_hash(seen.request.session, scores)
    for replica in range(len(scores)):
        if requests(seen, replica) + 1.0 > most:
            scores[replica] = math.inf
