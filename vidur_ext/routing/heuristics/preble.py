"""The longest match if it is most of the prompt, by requests; else the least cost.

Preble's E2 (Srivatsa et al., Preble: Efficient Distributed Prompt Scheduling for LLM Serving, ICLR
2025), as AIBrix has it (vllm-project/aibrix@e3e10f9e, prefix-cache-preble): where more than half of
the prompt is found, exploit: of the replicas with most of it the one with the fewest requests. Else
explore: the least cost in seconds. Preble's cost is the work of the last three minutes' requests,
the prefill of what is missing, and what evicted prefixes will cost; here the predicted latency of
the request stands for the first two. Left out: the history and the evictions, the copying of hot
prefixes to other replicas, and keeping prefill and decoding apart.
"""

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import (
    Compared,
    SeenAll,
    count_requests,
    keep_most_found,
    most_found_share,
)
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    if most_found_share(seen) > told.preble.match_share:
        count_requests(seen, scores)
        keep_most_found(seen, scores)
        return
    for replica in range(len(scores)):
        scores[replica] = seen.table[Compared.LATENCY_S, replica]
