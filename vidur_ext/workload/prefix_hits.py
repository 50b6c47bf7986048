"""How many tokens of each prompt a cache of all requests would hold: what reuse there is."""

from __future__ import annotations

import numpy as np

from ppo_scheduler.compiled import compiled, compiled_entry
from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.prompts import Ints
from vidur_ext.workload.request_table import RequestTable


def hit_tokens(
    table: RequestTable,
    block_tokens: int,
    capacity_tokens: int | None = None,
    *,
    answers: bool = True,
) -> Ints:
    """Return how many tokens of each prompt are found in one cache of full blocks, int64 [N].

    Requests are taken one after the other, each served before the next. Blocks that are not used
    for longest are given up, the end of a prompt before its beginning. At least one token of a
    prompt is always computed.

    Args:
        table: requests with ``prompts``; closed loops count in the order of their rows.
        capacity_tokens: of the cache; None: nothing is ever given up.
        answers: whether answers stay in the cache as well, but for their last token, whose keys and
            values no server computes. The hash ids of traces tell of prompts only.
    """
    assert table.prompts is not None, "requests without texts share nothing"
    answer_tokens = table.decode_tokens - 1 if answers else np.zeros(len(table), dtype=np.int64)
    runs = block_runs(table.prompts, answer_tokens, block_tokens)
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs.counts)])
    found = np.zeros(len(table), dtype=np.int64)
    size = runs.identities
    capacity = size if capacity_tokens is None else min(size, capacity_tokens // block_tokens)
    # A ring of the cached blocks, from the one that is next to be given up; its anchor is `size`.
    ring = np.full((2, size + 1), -1, dtype=np.int64)
    ring[:, size] = size
    most = (table.prefill_tokens - 1) // block_tokens
    _look_up(first, runs.of_all(), most, capacity, ring, found)
    return found * block_tokens


_NEXT, _PREVIOUS = 0, 1


@compiled
def _take_out(ring: Ints, block: int) -> None:
    before, after = ring[_PREVIOUS, block], ring[_NEXT, block]
    ring[_NEXT, before], ring[_PREVIOUS, after] = after, before
    ring[_NEXT, block] = ring[_PREVIOUS, block] = -1


@compiled
def _put_last(ring: Ints, block: int) -> None:
    anchor = ring.shape[1] - 1
    before = ring[_PREVIOUS, anchor]
    ring[_NEXT, before], ring[_PREVIOUS, block] = block, before
    ring[_NEXT, block], ring[_PREVIOUS, anchor] = anchor, block


@compiled_entry
def _look_up(first: Ints, number: Ints, most: Ints, capacity: int, ring: Ints, found: Ints) -> None:
    """Serve the requests; ``most`` [N] blocks may be found, ``found`` [N] are."""
    anchor = ring.shape[1] - 1
    cached = 0
    for request in range(len(found)):
        start, stop = first[request], first[request + 1]
        while found[request] < most[request] and ring[_NEXT, number[start + found[request]]] >= 0:
            found[request] += 1
        for at in range(stop - 1, start - 1, -1):
            if ring[_NEXT, number[at]] >= 0:
                _take_out(ring, number[at])
                cached -= 1
            if cached == capacity and capacity > 0:
                _take_out(ring, ring[_NEXT, anchor])
                cached -= 1
            if cached < capacity:
                _put_last(ring, number[at])
                cached += 1
