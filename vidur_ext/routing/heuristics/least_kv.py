"""Smallest share of KV blocks in use."""

from ppo_scheduler.compiled import compiled
from vidur_ext.routing.view import Seen


@compiled
def score(seen: Seen) -> float:
    return float(seen.replica.kv_blocks_used / seen.replica.kv_blocks_total)
