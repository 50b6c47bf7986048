"""What the routers that people run choose, on states made by hand, and what tuning them changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidur_ext.config.routers import RoutersSection
from vidur_ext.config.sections import PREFIX_ROUTERS, SESSION_ROUTERS
from vidur_ext.routing.estimator import Estimates, Rate
from vidur_ext.routing.thresholds import Thresholds, thresholds_of
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, Quantity
from vidur_ext.vidur.observation import HeuristicChooser

BLOCK = 16
PROMPT, OUTPUT = 160, 100


def state(**rows: list[float]) -> ClusterSnapshot:
    """Return replicas of 100 KV blocks; what is not named is 0."""
    table = np.zeros((len(Quantity), len(next(iter(rows.values())))))
    table[Quantity.KV_BLOCKS_TOTAL] = 100.0
    for name, values in rows.items():
        table[Quantity[name.upper()]] = values
    return ClusterSnapshot(0.0, table)


def arriving(
    found=None, session: int = 0, session_replica: int = -1, in_use=None
) -> ArrivingRequest:
    """Return a prompt of ten blocks; ``found`` are tokens of it per replica, ``in_use`` of these
    those that running requests use.
    """
    return ArrivingRequest(
        0.0,
        PROMPT,
        float(OUTPUT),
        50,
        found_tokens=None if found is None else np.array(found, dtype=np.float64),
        found_in_use_tokens=None if in_use is None else np.array(in_use, dtype=np.float64),
        session=session,
        session_replica=session_replica,
    )


def predicting(ttft_s: list[float], token_s: list[float] | None = None) -> Estimates:
    """Return replicas whose times to first token and per output token are predicted like this."""
    known = Estimates(
        np.zeros((len(ttft_s), 9)), np.zeros((len(ttft_s), len(Rate))), 512.0, 128.0, 1.0
    )
    known.rates[:, Rate.REQUEST_S] = ttft_s
    known.base[:] = np.array(token_s or [0.0] * len(ttft_s))[:, None]
    return known


def told(**sections: dict[str, float]) -> Thresholds:
    return thresholds_of(RoutersSection.model_validate(sections), BLOCK)


def choices(
    name: str,
    seen: ClusterSnapshot,
    request: ArrivingRequest,
    known: Estimates | None = None,
    **keys: float,
) -> set[int]:
    """Return all replicas that a rule may take; ``keys`` of its section are tuned."""
    known = known or predicting([0.0] * seen.num_replicas)
    chooser = HeuristicChooser(name, known, told(**{name: keys} if keys else {}), rng())
    return {chooser.choose(seen, request) for _ in range(40)}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def idle(replicas: int) -> ClusterSnapshot:
    return state(waiting=[0] * replicas)


def by_hash(session: int, replicas: int) -> int:
    [first] = choices("session_hash", idle(replicas), arriving(session=session))
    return first


def test_a_session_has_its_replica_whatever_the_load():
    first = by_hash(7, 4)
    busy = state(running=[99 if replica == first else 0 for replica in range(4)])
    assert choices("session_hash", busy, arriving(session=7)) == {first}


def test_sessions_are_spread_evenly():
    counts = np.bincount([by_hash(session, 4) for session in range(400)], minlength=4)
    assert counts.min() > 70, "of 100 on average, more than three standard deviations below"


def test_one_more_replica_takes_sessions_and_moves_no_others():
    moved = [(by_hash(session, 3), by_hash(session, 4)) for session in range(100)]
    assert {after for before, after in moved if after != before} == {3}
    assert 10 < sum(before != after for before, after in moved) < 45


def test_a_full_replica_is_passed_over_in_the_order_of_the_hash():
    """Of 12 requests, the arriving one included, four replicas have at most ceil(1.25 * 3) = 4."""
    first = by_hash(5, 4)
    rows = [4 if replica == first else 2 for replica in range(4)]
    rows[(first + 1) % 4] += 1
    full = state(running=rows)
    [second] = choices("bounded_hash", full, arriving(session=5))
    assert second != first
    rows[first] -= 1
    assert choices("bounded_hash", state(running=rows), arriving(session=5)) == {first}


@pytest.mark.shows("routers.bounded_hash.load_factor")
def test_a_larger_load_factor_lets_a_session_stay():
    first = by_hash(5, 4)
    full = state(waiting=[4 if replica == first else 2 for replica in range(4)])
    assert first not in choices("bounded_hash", full, arriving(session=5))
    assert choices("bounded_hash", full, arriving(session=5), load_factor=1.5) == {first}


def test_cache_aware_takes_the_longest_match_above_its_share():
    seen = state(running=[20, 0, 0], context_tokens=[900, 100, 50])
    assert choices("cache_aware", seen, arriving([64, 48, 0])) == {0}
    assert choices("cache_aware", seen, arriving([48, 48, 0])) == {2}, "0.3 is not above 0.3"


def test_cache_aware_counts_waiting_prompts_among_what_a_replica_was_sent():
    seen = state(pending_prefill_tokens=[0, 300], context_tokens=[200, 0])
    assert choices("cache_aware", seen, arriving([0, 0])) == {0}


def test_cache_aware_balances_requests_only_beyond_both_limits():
    match = arriving([160, 0])
    assert choices("cache_aware", state(running=[65, 0]), match) == {1}
    assert choices("cache_aware", state(running=[64, 0]), match) == {0}, "64 is not more than 64"
    assert choices("cache_aware", state(running=[300, 200]), match) == {0}, "1.5 times as many"
    assert choices("cache_aware", state(running=[301, 200]), match) == {1}


@pytest.mark.shows(
    "routers.cache_aware.match_share",
    "routers.cache_aware.imbalance_requests",
    "routers.cache_aware.imbalance_ratio",
)
def test_cache_aware_can_be_tuned():
    part = state(running=[0, 0], context_tokens=[500, 0])
    assert choices("cache_aware", part, arriving([64, 0])) == {0}
    assert choices("cache_aware", part, arriving([64, 0]), match_share=0.5) == {1}
    few = state(running=[12, 2])
    assert choices("cache_aware", few, arriving([160, 0]), imbalance_requests=8.0) == {1}
    several = state(running=[300, 200])
    assert choices("cache_aware", several, arriving([160, 0]), imbalance_ratio=1.4) == {1}


def test_llm_d_adds_up_prefix_queue_and_cache():
    """3 * 5/10 + 2 * 0 + 2 * (1 - 0.6) = 2.3; 0 + 2 * 1 + 2 * (1 - 0.9) = 2.2; with 0.8, 2.4."""
    seen = state(waiting=[4, 0], kv_blocks_used=[60, 90])
    assert choices("llm_d", seen, arriving([80, 0])) == {0}
    seen.table[Quantity.KV_BLOCKS_USED] = [60, 80]
    assert choices("llm_d", seen, arriving([80, 0])) == {1}


def test_llm_d_puts_queues_between_the_shortest_and_the_longest():
    """Scores 0.5, 0 and 1, twice; the first one's prefix is worth 3 * 0.3."""
    seen = state(waiting=[5, 8, 2])
    assert choices("llm_d", seen, arriving([48, 0, 0])) == {2}
    assert choices("llm_d", seen, arriving([64, 0, 0])) == {0}


@pytest.mark.shows(
    "routers.llm_d.prefix_weight", "routers.llm_d.queue_weight", "routers.llm_d.kv_weight"
)
def test_the_weights_of_llm_d():
    seen, match = state(waiting=[0, 1, 1], kv_blocks_used=[90, 0, 50]), arriving([0, 0, 128])
    only = {"prefix_weight": 0.0, "queue_weight": 0.0, "kv_weight": 0.0}
    assert choices("llm_d", seen, match, **only | {"prefix_weight": 1.0}) == {2}
    assert choices("llm_d", seen, match, **only | {"queue_weight": 1.0}) == {0}
    assert choices("llm_d", seen, match, **only | {"kv_weight": 1.0}) == {1}


def test_llm_d_affinity_keeps_to_the_prefix_and_then_to_the_least_tokens():
    seen = state(uncached_prefill_tokens=[900, 800, 0])
    assert choices("llm_d_affinity", seen, arriving([128, 128, 112])) == {1}
    assert choices("llm_d_affinity", seen, arriving([112, 112, 0])) == {2}, "0.7 is below 0.8"


def test_llm_d_affinity_counts_what_is_missing_of_the_prompt():
    seen = state(uncached_prefill_tokens=[100, 60])
    assert choices("llm_d_affinity", seen, arriving([64, 0])) == {0}, "196 tokens, not 220"


def test_llm_d_affinity_leaves_a_hot_replica():
    seen, match = state(uncached_prefill_tokens=[900, 0]), arriving([160, 0])
    assert choices("llm_d_affinity", seen, match, predicting([7.0, 2.0])) == {0}
    assert choices("llm_d_affinity", seen, match, predicting([7.5, 2.0])) == {1}


@pytest.mark.shows("routers.llm_d_affinity.match_share", "routers.llm_d_affinity.ttft_penalty_s")
def test_llm_d_affinity_can_be_tuned():
    seen, match = state(uncached_prefill_tokens=[900, 0]), arriving([80, 0])
    assert choices("llm_d_affinity", seen, match) == {1}
    assert choices("llm_d_affinity", seen, match, match_share=0.5) == {0}
    late = predicting([2.0, 1.0])
    tuned = {"match_share": 0.5, "ttft_penalty_s": 0.5}
    assert choices("llm_d_affinity", seen, match, late, **tuned) == {1}


def test_dynamo_weighs_blocks_to_compute_against_blocks_in_use():
    """(320 + 160)/16 - 10 + 20 = 40 + 10, against (0 + 160)/16 - 0 + 29 = 39 + 10, and 41 + 10."""
    seen = state(uncached_prefill_tokens=[320, 0], kv_blocks_used=[20, 29])
    assert choices("dynamo_kv", seen, arriving([160, 0])) == {1}
    seen.table[Quantity.KV_BLOCKS_USED] = [20, 31]
    assert choices("dynamo_kv", seen, arriving([160, 0])) == {0}


def test_dynamo_counts_found_blocks_in_use_once():
    """(0 + 160)/16 - 10 + 29 + 10 - in use 0, 5, 6 or 10 blocks, against 10 - 0 + 14 + 10 = 34."""
    seen = state(kv_blocks_used=[29, 14])
    for blocks, expected in ((0, {1}), (4, {1}), (5, {0, 1}), (6, {0}), (10, {0})):
        assert choices("dynamo_kv", seen, arriving([160, 0], in_use=[16 * blocks, 0])) == expected


def test_dynamo_draws_among_equals():
    seen = state(uncached_prefill_tokens=[16, 0, 0], kv_blocks_used=[4, 5, 6])
    assert choices("dynamo_kv", seen, arriving([0, 0, 0])) == {0, 1}


@pytest.mark.shows("routers.dynamo_kv.prefill_weight")
def test_dynamo_can_weigh_prefill_more():
    seen = state(uncached_prefill_tokens=[320, 0], kv_blocks_used=[20, 31])
    assert choices("dynamo_kv", seen, arriving([160, 0]), prefill_weight=2.0) == {1}


def test_aibrix_takes_the_best_match_that_is_not_too_busy():
    """Mean 4 and deviation 2 of 2, 6 and 4: up to 6 requests are not too many."""
    seen = state(running=[2, 6, 4])
    assert seen.outstanding.std() < 2.0
    assert choices("aibrix_prefix", seen, arriving([32, 160, 64])) == {2}, "1.63 above is less"
    seen = state(running=[2, 4, 4])
    assert choices("aibrix_prefix", seen, arriving([32, 160, 64])) == {1}


def test_aibrix_goes_by_requests_among_equal_matches():
    assert choices("aibrix_prefix", state(running=[3, 2, 2]), arriving([64, 64, 32])) == {1}
    assert choices("aibrix_prefix", state(waiting=[3, 2, 2]), arriving([0, 0, 0])) == {1, 2}


def test_aibrix_balances_beyond_eight_requests():
    match = arriving([160, 160, 0])
    assert choices("aibrix_prefix", state(running=[9, 9, 0]), match) == {2}
    assert choices("aibrix_prefix", state(running=[8, 8, 0]), match) == {0, 1}


@pytest.mark.shows("routers.aibrix_prefix.imbalance_requests", "routers.aibrix_prefix.deviations")
def test_aibrix_can_be_tuned():
    match = arriving([32, 160, 64])
    assert choices("aibrix_prefix", state(running=[2, 6, 4]), match, deviations=2.0) == {1}
    both = arriving([160, 160, 0])
    tight = state(running=[4, 4, 0])
    assert choices("aibrix_prefix", tight, both) == {0, 1}
    assert choices("aibrix_prefix", tight, both, imbalance_requests=3.0) == {2}


def test_preble_exploits_where_more_than_half_is_found():
    seen, slow = state(running=[9, 3, 0]), predicting([9.0, 8.0, 1.0])
    assert choices("preble", seen, arriving([96, 96, 0]), slow) == {1}
    assert choices("preble", seen, arriving([80, 80, 0]), slow) == {2}, "0.5 is not above 0.5"


def test_preble_explores_by_cost_of_prefill_and_decoding():
    """2 + 100 * 0.01 = 3 s against 1 + 100 * 0.03 = 4 s."""
    known = predicting([2.0, 1.0], [0.01, 0.03])
    assert choices("preble", idle(2), arriving([0, 0]), known) == {0}


@pytest.mark.shows("routers.preble.match_share")
def test_preble_can_be_tuned():
    seen, slow = idle(2), predicting([9.0, 1.0])
    assert choices("preble", seen, arriving([112, 0]), slow) == {0}
    assert choices("preble", seen, arriving([112, 0]), slow, match_share=0.8) == {1}


def test_a_session_stays_while_its_replica_has_at_most_twice_the_least():
    """The arriving prompt counts: 160 + 160 is twice 0 + 160."""
    seen = state(uncached_prefill_tokens=[160, 0, 50])
    assert choices("sticky_uncached", seen, arriving(session_replica=0)) == {0}
    seen = state(uncached_prefill_tokens=[161, 0, 50])
    assert choices("sticky_uncached", seen, arriving(session_replica=0)) == {1}


def test_the_first_request_of_a_session_goes_where_least_is_to_be_computed():
    seen = state(uncached_prefill_tokens=[100, 90, 90])
    assert choices("sticky_uncached", seen, arriving()) == {1, 2}
    assert choices("sticky_uncached", seen, arriving([64, 0, 0])) == {0}


@pytest.mark.shows("routers.sticky_uncached.tolerance")
def test_a_session_can_be_more_tolerant():
    seen = state(uncached_prefill_tokens=[300, 0])
    assert choices("sticky_uncached", seen, arriving(session_replica=0)) == {1}
    assert choices("sticky_uncached", seen, arriving(session_replica=0), tolerance=3.0) == {0}


NAME = "prefix_predicted_latency"


def test_predicted_latency_keeps_to_all_of_the_prompt_before_most_of_it():
    known = predicting([3.0, 2.0, 1.0])
    assert choices(NAME, idle(3), arriving([160, 144, 0]), known) == {0}
    assert choices(NAME, idle(3), arriving([128, 144, 0]), known) == {1}
    assert choices(NAME, idle(3), arriving([112, 112, 0]), known) == {2}


def test_predicted_latency_weighs_both_times_between_the_least_and_the_most():
    """TTFT 0, 0.5 and 1, per token 1, 0.5 and 0: 0.2, 0.5 and 0.8."""
    known = predicting([1.0, 2.0, 3.0], [0.03, 0.02, 0.01])
    assert choices(NAME, idle(3), arriving([0, 0, 0]), known) == {0}
    assert choices(NAME, idle(3), arriving([0, 160, 160]), known) == {1}, "0 + 0.2, 0.8 + 0"
    alike = predicting([1.0, 1.0], [0.02, 0.01])
    assert choices(NAME, idle(2), arriving([0, 0]), alike) == {1}


@pytest.mark.shows(
    "routers.prefix_predicted_latency.strict_share",
    "routers.prefix_predicted_latency.loose_share",
    "routers.prefix_predicted_latency.ttft_penalty_s",
    "routers.prefix_predicted_latency.ttft_weight",
    "routers.prefix_predicted_latency.tpot_weight",
)
def test_predicted_latency_can_be_tuned():
    known = predicting([3.0, 2.0, 1.0])
    assert choices(NAME, idle(3), arriving([160, 144, 0]), known, strict_share=0.9) == {1}
    assert choices(NAME, idle(3), arriving([112, 112, 0]), known, loose_share=0.7) == {1}
    assert choices(NAME, idle(3), arriving([160, 160, 0]), known, ttft_penalty_s=0.5) == {2}
    known = predicting([1.0, 2.0, 3.0], [0.03, 0.02, 0.01])
    assert choices(NAME, idle(3), arriving([0, 0, 0]), known, ttft_weight=0.1) == {2}
    assert choices(NAME, idle(3), arriving([0, 0, 0]), known, tpot_weight=1.0) == {2}


@pytest.mark.parametrize("name", [n for n in PREFIX_ROUTERS if n != "preble"])
def test_equal_replicas_share_the_requests(name):
    chooser = HeuristicChooser(name, predicting([0.0] * 4), told(), rng())
    chosen = [chooser.choose(idle(4), arriving([0] * 4)) for _ in range(400)]
    assert np.bincount(chosen, minlength=4).min() > 60


@pytest.mark.parametrize("name", [*PREFIX_ROUTERS, *SESSION_ROUTERS])
def test_one_replica_gets_everything(name):
    assert choices(name, state(running=[500]), arriving([160])) == {0}


@pytest.mark.parametrize("name", sorted({*PREFIX_ROUTERS} - {*SESSION_ROUTERS}))
def test_prefix_rules_do_not_ask_whose_a_request_is(name):
    seen, request = state(running=[3, 2, 1]), arriving([64, 0, 0])
    same = {frozenset(choices(name, seen, replace(request, session=s))) for s in range(5)}
    assert len(same) == 1


def test_the_defaults_are_those_of_their_code():
    assert RoutersSection().model_dump() == {
        "bounded_hash": {"load_factor": 1.25},
        "cache_aware": {"match_share": 0.3, "imbalance_requests": 64, "imbalance_ratio": 1.5},
        "llm_d": {"prefix_weight": 3, "queue_weight": 2, "kv_weight": 2},
        "llm_d_affinity": {"match_share": 0.8, "ttft_penalty_s": 5},
        "dynamo_kv": {"prefill_weight": 1},
        "aibrix_prefix": {"imbalance_requests": 8, "deviations": 1},
        "preble": {"match_share": 0.5},
        "sticky_uncached": {"tolerance": 2},
        "prefix_predicted_latency": {
            "strict_share": 0.99,
            "loose_share": 0.8,
            "ttft_penalty_s": 5,
            "ttft_weight": 0.8,
            "tpot_weight": 0.2,
        },
    }
