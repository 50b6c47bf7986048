"""The most of the prompt among replicas that are not too busy.

AIBrix's prefix-cache (vllm-project/aibrix@e3e10f9e, ``prefix_cache.go``): if the most requests
exceed the fewest by more than 8, the replica with the fewest. Else by what is found of the prompt,
the most first, and then by requests, the fewest first, the first one with at most the mean of
requests and one standard deviation. Requests, waiting or running, are what its gateway counts as
running; what is found is compared in tokens, where AIBrix rounds to per cents.
"""

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import SeenAll, count_requests, keep_most_found
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    own = told.aibrix_prefix
    fewest, most = count_requests(seen, scores)
    if most - fewest > own.imbalance_requests:
        return
    total = squares = 0.0
    for score in scores:
        total += score
        squares += score * score
    mean = total / len(scores)
    deviation = math.sqrt(max(0.0, squares / len(scores) - mean * mean))
    for replica in range(len(scores)):
        if scores[replica] > mean + own.deviations * deviation:
            scores[replica] = math.inf
    keep_most_found(seen, scores)
