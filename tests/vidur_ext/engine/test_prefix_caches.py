"""What replicas with prefix caches find, on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.workload.prefix_hits import hit_tokens
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

_V1 = {
    "num_replicas": 1,
    "replica_scheduler": "vllm_v1",
    "prefix_caching": True,
    "block_size": 16,
    "num_blocks": 4000,
    "batch_size_cap": 16,
    "chunk_size": 512,
    "watermark_blocks_fraction": 0.0,
}
"""One request at a time is served in 20 s on it, and nothing is ever evicted."""


def table_of(rows, outputs, gap_s):
    prompts = Prompts.of(rows, [100 + request for request in range(len(rows))])
    return RequestTable(np.arange(len(rows)) * gap_s, prompts.lengths, np.array(outputs), prompts)


def test_what_is_found_of_a_conversation_is_worked_out_by_hand(make_case, simulate):
    """System prompt of 40 tokens, then turns; full blocks of 16 are found, the last token never."""
    system, ask = (1, 40), [(2, 24), (3, 8), (4, 8)]
    rows = [
        [system, ask[0]],  # 64 tokens, answered by 16: 79 of 80 are computed, 4 full blocks
        [system, ask[0], (100, 16), ask[1]],  # finds the 64 of the first prompt
        [system, ask[2]],  # finds the 2 full blocks of the system prompt
        [system, ask[0]],  # the same again: of 64 tokens, one must be computed, so 3 blocks
    ]
    history = simulate(make_case(_V1, "round_robin", 300, 0, table_of(rows, [16, 4, 4, 4], 20.0)))
    assert history.found_tokens.tolist() == [0, 64, 32, 48]


@pytest.mark.parametrize("seed", range(3))
def test_an_endless_cache_finds_what_the_workload_repeats(seed, make_case, simulate):
    """Served one by one, nothing evicted: the ideal hits of the table."""
    rng = np.random.default_rng(seed)
    rows, outputs = [], rng.integers(1, 60, 40).tolist()
    for request in range(40):
        if rows and rng.random() < 0.6:
            before = int(rng.integers(request))
            text = [*rows[before], (100 + before, int(outputs[before]))]
        else:
            text = [(int(rng.integers(3)), int(rng.integers(1, 90)))]
        text = text if sum(n for _, n in text) < 500 else text[:1]
        rows.append([*text, (1000 + request, int(rng.integers(1, 60)))])
    table = table_of(rows, outputs, 20.0)
    found = simulate(make_case(_V1, "round_robin", 900, 0, table)).found_tokens
    ideal = hit_tokens(table, _V1["block_size"])
    np.testing.assert_array_equal(found, ideal)
    assert found.sum() > 1000


def test_nothing_is_found_without_caching(make_case, simulate):
    rows = [[(1, 64)]] * 3
    cluster = {**_V1, "prefix_caching": False}
    history = simulate(make_case(cluster, "round_robin", 300, 0, table_of(rows, [4] * 3, 20.0)))
    assert not history.found_tokens.any()
