"""The fewest blocks: those still to be computed, and those that are then in use.

NVIDIA Dynamo's KV router at temperature 0 (ai-dynamo/dynamo@07a6c9ce, ``lib/kv-router``): cost =
max(0, (uncached tokens of the prompts in flight + prompt) / block - found blocks) + blocks in use
after the request's admission, ties at random. Found blocks that are in use already do not count
again. Dynamo keeps books of what it has sent: a prompt in flight counts whole until its first token
is there, where here it is what is left of it, and blocks in use are those of the prompts in flight,
waiting ones included, where here they are those of the replica, answers included.
"""

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import Compared, SeenAll, uncached_tokens
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    blocks = math.ceil(seen.request.prompt_tokens / told.block_tokens)
    for replica in range(len(scores)):
        prefill = max(0.0, uncached_tokens(seen, replica) / told.block_tokens)
        in_use = seen.table[Compared.FOUND_IN_USE_TOKENS, replica] / told.block_tokens
        decode = seen.table[Compared.KV_BLOCKS_USED, replica] + blocks - in_use
        scores[replica] = told.dynamo_kv.prefill_weight * prefill + decode
