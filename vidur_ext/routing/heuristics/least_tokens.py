"""Fewest prompt tokens to be processed plus weighted tokens in the KV cache."""

from ppo_scheduler.compiled import compiled
from vidur_ext.routing.view import Seen

CONTEXT_WEIGHT = 0.1
"""Work of a token held in the KV cache relative to a prompt token to be processed."""


@compiled
def score(seen: Seen) -> float:
    return float(seen.replica.pending_prefill_tokens + CONTEXT_WEIGHT * seen.replica.context_tokens)
