"""What rules that compare all replicas see of them; compiled: what several of them ask."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.columns import Column


class Compared(Column):
    """What is compared of each replica: the rows of ``SeenAll.table``; see ``view``."""

    WAITING = "requests", "without KV blocks"
    RUNNING = "requests", "with KV blocks"
    PENDING_PREFILL_TOKENS = "tokens", "of prompts, still to be processed"
    UNCACHED_PREFILL_TOKENS = "tokens", "pending, less those of waiting prompts expected cached"
    CONTEXT_TOKENS = "tokens", "in the KV cache"
    KV_BLOCKS_USED = "blocks", "of the KV cache that are taken"
    KV_BLOCKS_TOTAL = "blocks", "of the KV cache"
    FOUND_TOKENS = "tokens", "of the arriving prompt, expected in its prefix cache"
    FOUND_IN_USE_TOKENS = "tokens", "of the found ones, in blocks that running requests use"
    TTFT_S = "s", "time to first token of the arriving request"
    LATENCY_S = "s", "end to end of the arriving request"


class SeenAll(NamedTuple):
    """All replicas at one decision.

    table [len(Compared), R]; request: ``Arriving``, by name.
    """

    table: Floats
    request: Any


@compiled
def see_all(look: Callable[..., Any], cluster: Any, table: Floats) -> SeenAll:
    """Look at every replica; write the table [len(Compared), R].

    A few of the quantities: others cost a walk through the queues.
    """
    for replica in range(table.shape[1]):
        seen = look(cluster, replica)
        table[Compared.WAITING, replica] = seen.replica.waiting
        table[Compared.RUNNING, replica] = seen.replica.running
        table[Compared.PENDING_PREFILL_TOKENS, replica] = seen.replica.pending_prefill_tokens
        table[Compared.UNCACHED_PREFILL_TOKENS, replica] = seen.replica.uncached_prefill_tokens
        table[Compared.CONTEXT_TOKENS, replica] = seen.replica.context_tokens
        table[Compared.KV_BLOCKS_USED, replica] = seen.replica.kv_blocks_used
        table[Compared.KV_BLOCKS_TOTAL, replica] = seen.replica.kv_blocks_total
        table[Compared.FOUND_TOKENS, replica] = seen.predicted.found_tokens
        table[Compared.FOUND_IN_USE_TOKENS, replica] = seen.predicted.found_in_use_tokens
        table[Compared.TTFT_S, replica] = seen.predicted.ttft_s
        table[Compared.LATENCY_S, replica] = seen.predicted.latency_s
    return SeenAll(table, seen.request)


@compiled
def requests(seen: SeenAll, replica: int) -> float:
    """Return how many requests wait or run on a replica."""
    table = seen.table
    return float(table[Compared.WAITING, replica] + table[Compared.RUNNING, replica])


@compiled
def found_share(seen: SeenAll, replica: int) -> float:
    """Return the share of the arriving prompt that is expected in a replica's cache."""
    found = seen.table[Compared.FOUND_TOKENS, replica]
    return float(found / seen.request.prompt_tokens)


@compiled
def most_found_share(seen: SeenAll) -> float:
    """Return the largest ``found_share`` of all replicas."""
    most = 0.0
    for replica in range(seen.table.shape[1]):
        most = max(most, found_share(seen, replica))
    return most


@compiled
def uncached_tokens(seen: SeenAll, replica: int) -> float:
    """Return the prompt tokens that a replica computes until the arriving prompt is done there."""
    found = seen.table[Compared.FOUND_TOKENS, replica]
    pending = seen.table[Compared.UNCACHED_PREFILL_TOKENS, replica]
    return float(pending + seen.request.prompt_tokens - found)


@compiled
def count_requests(seen: SeenAll, scores: Floats) -> tuple[float, float]:
    """Score replicas by their requests; return the fewest and the most."""
    fewest, most = math.inf, 0.0
    for replica in range(len(scores)):
        scores[replica] = requests(seen, replica)
        fewest, most = min(fewest, scores[replica]), max(most, scores[replica])
    return fewest, most


@compiled
def keep_most_found(seen: SeenAll, scores: Floats) -> None:
    """Leave in the running, of those with a finite score, who has most of the prompt."""
    most = 0.0
    for replica in range(len(scores)):
        if scores[replica] < math.inf:
            most = max(most, found_share(seen, replica))
    for replica in range(len(scores)):
        if found_share(seen, replica) < most:
            scores[replica] = math.inf


@compiled
def share_to_keep(seen: SeenAll, share: float, ttft_penalty_s: float) -> float:
    """Return the share of the prompt that a replica must have: ``share``, or 0.

    That is llm-d's prefix-cache affinity (llm-d/llm-d-router@ebab68792): those with the share are
    kept to, unless the best time to first token there is ``ttft_penalty_s`` above the others'.
    """
    kept = others = math.inf
    for replica in range(seen.table.shape[1]):
        ttft_s = seen.table[Compared.TTFT_S, replica]
        if found_share(seen, replica) >= share:
            kept = min(kept, ttft_s)
        else:
            others = min(others, ttft_s)
    return share if kept < math.inf and kept <= others + ttft_penalty_s else 0.0
