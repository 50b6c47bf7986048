"""The longest match, else the smallest cache; fewest requests where loads are out of balance.

The SGLang gateway's cache_aware (lightseekorg/smg@73da68ca9, ``policies/cache_aware.rs``): loads
are out of balance if the most requests exceed the fewest by more than 64 and are more than 1.5
times as many. Otherwise the replica with the longest match gets the request if that is more than
0.3 of the prompt, else the one with the smallest tree of prefixes. The gateway's trees count
characters of all it has sent and not evicted; no engine shows that, so the tokens of the requests
that are there stand for them: in the KV cache, and of prompts still to be processed.
"""

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import (
    Compared,
    SeenAll,
    count_requests,
    found_share,
    most_found_share,
)
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    own = told.cache_aware
    fewest, most = count_requests(seen, scores)
    if most - fewest > own.imbalance_requests and most > own.imbalance_ratio * fewest:
        return
    matches = most_found_share(seen) > own.match_share
    for replica in range(len(scores)):
        tokens = seen.table[Compared.CONTEXT_TOKENS, replica]
        tokens += seen.table[Compared.PENDING_PREFILL_TOKENS, replica]
        scores[replica] = -found_share(seen, replica) if matches else tokens
