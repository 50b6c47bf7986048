"""The fewest prompt tokens to be computed, among those with most of the prompt.

llm-d's newer default (llm-d/llm-d-router@ebab68792): its prefix-cache affinity filter keeps to the
replicas with at least 0.8 of the prompt, unless the time to first token there is 5 s above that of
the others; then the token load decides: uncached tokens of the prompts in flight, and of the
arriving one. Left out: in one of a hundred decisions the filter is not asked. llm-d estimates the
time to first token from tokens in flight and a measured throughput; here our prediction stands for
it.
"""

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import SeenAll, found_share, share_to_keep, uncached_tokens
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    own = told.llm_d_affinity
    share = share_to_keep(seen, own.match_share, own.ttft_penalty_s)
    for replica in range(len(scores)):
        kept = found_share(seen, replica) >= share
        scores[replica] = uncached_tokens(seen, replica) if kept else math.inf
