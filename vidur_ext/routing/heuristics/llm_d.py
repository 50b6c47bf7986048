"""The largest sum of scores for what is found of the prompt, a short queue and a free cache.

llm-d's scorers with their weights 3, 2 and 2 (llm-d/llm-d-router@ebab68792, v0.10): found blocks by
blocks of the prompt; waiting requests, 1 for the fewest and 0 for the most; the share of the KV
cache that is free. What is found is what ``observation.prefix_knowledge`` says, exact or llm-d's
approximate index; its default scorers know nothing else.
"""

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import Compared, SeenAll, found_share
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    own, table = told.llm_d, seen.table
    shortest, longest = math.inf, 0.0
    for replica in range(len(scores)):
        shortest = min(shortest, table[Compared.WAITING, replica])
        longest = max(longest, table[Compared.WAITING, replica])
    for replica in range(len(scores)):
        queue = 1.0
        if longest > shortest:
            queue = (longest - table[Compared.WAITING, replica]) / (longest - shortest)
        used = table[Compared.KV_BLOCKS_USED, replica] / table[Compared.KV_BLOCKS_TOTAL, replica]
        scores[replica] = -(
            own.prefix_weight * found_share(seen, replica)
            + own.queue_weight * queue
            + own.kv_weight * (1.0 - used)
        )
