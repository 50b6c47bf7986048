"""The session's replica unless it is too busy; else the fewest prompt tokens to be computed.

Vidur's canary, TOLERANT_STICKY_LOP_UNCACHED (microsoft/vidur@25e0082): a session stays where its
last request went while the load there is at most 2 times the least one. Load is what LOP_UNCACHED
makes least: the prompt tokens in flight that no cache holds, those of the arriving request
included.
"""

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import SeenAll, uncached_tokens
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True
READS_SESSIONS = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    least = math.inf
    for replica in range(len(scores)):
        scores[replica] = uncached_tokens(seen, replica)
        least = min(least, scores[replica])
    last = int(seen.request.session_replica)
    if last >= 0 and scores[last] <= told.sticky_uncached.tolerance * least:
        scores[:] = math.inf
        scores[last] = 0.0
