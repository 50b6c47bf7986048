"""What every heuristic prefers, on snapshots made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidur_ext.config.routers import RoutersSection
from vidur_ext.config.sections import CONTROLS, HEURISTIC_NAMES, ORACLES
from vidur_ext.routing.estimator import Estimates, Rate
from vidur_ext.routing.heuristics import HEURISTICS
from vidur_ext.routing.thresholds import thresholds_of
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, Quantity
from vidur_ext.vidur.observation import HeuristicChooser

REQUEST = ArrivingRequest(0.0, prompt_tokens=100, expected_output_tokens=64.0, output_tokens=50)
TOLD = thresholds_of(RoutersSection(), block_size=16)


def snapshot(**rows: list[float]) -> ClusterSnapshot:
    replicas = len(next(iter(rows.values())))
    table = np.zeros((len(Quantity), replicas))
    table[Quantity.KV_BLOCKS_TOTAL] = 100.0
    for name, values in rows.items():
        table[Quantity[name.upper()]] = values
    return ClusterSnapshot(0.0, table)


def estimates(replicas: int, **rates: list[float]) -> Estimates:
    """Return speeds where everything takes no time but for ``rates``; batches take 512 tokens."""
    known = Estimates(np.zeros((replicas, 9)), np.zeros((replicas, len(Rate))), 512.0, 128.0, 1.0)
    for name, values in rates.items():
        known.rates[:, Rate[name.upper()]] = values
    return known


def choose(
    name: str,
    seen: ClusterSnapshot,
    seed: int = 0,
    known: Estimates | None = None,
    request: ArrivingRequest = REQUEST,
) -> int:
    known = estimates(seen.num_replicas) if known is None else known
    chooser = HeuristicChooser(name, known, TOLD, np.random.default_rng(seed))
    return chooser.choose(seen, request)


def test_least_outstanding_counts_waiting_and_running():
    assert choose("least_outstanding", snapshot(waiting=[0, 3, 1], running=[9, 2, 3])) == 2


def test_vllm_weighs_waiting_four_times():
    seen = snapshot(waiting=[2, 0], running=[1, 8])
    assert choose("least_outstanding", seen) == 0
    assert choose("vllm_dp", seen) == 1


def test_least_tokens_weighs_prompts_against_held_tokens():
    assert choose("least_tokens", snapshot(pending_prefill_tokens=[500, 400])) == 1
    assert (
        choose(
            "least_tokens", snapshot(pending_prefill_tokens=[500, 400], context_tokens=[0, 1001])
        )
        == 0
    )
    assert (
        choose("least_tokens", snapshot(pending_prefill_tokens=[500, 400], context_tokens=[0, 999]))
        == 1
    )


def test_least_kv_goes_by_share_not_by_count():
    seen = snapshot(kv_blocks_used=[40, 50], kv_blocks_total=[50, 100])
    assert choose("least_kv", seen) == 1


def test_power_of_two_never_takes_the_fullest_and_not_always_the_emptiest():
    seen = snapshot(running=[9, 5, 1])
    chosen = {choose("power_of_two", seen, seed) for seed in range(50)}
    assert chosen == {1, 2}


def test_power_of_two_works_with_one_replica():
    assert choose("power_of_two", snapshot(running=[3])) == 0


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_power_of_two_draws_its_pair_as_numpy_does(replicas):
    """Ranked by their index, the lighter of the two is the smaller one."""
    seen = snapshot(running=list(range(replicas)))
    chooser = HeuristicChooser("power_of_two", estimates(replicas), TOLD, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    for _ in range(2000):
        pair = rng.choice(replicas, size=2, replace=False)
        assert chooser.choose(seen, REQUEST) == pair.min()


def test_ties_are_drawn_as_numpy_does():
    seen = snapshot(running=[1, 0, 0, 1, 0])
    chooser = HeuristicChooser("least_outstanding", estimates(5), TOLD, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    for _ in range(2000):
        assert chooser.choose(seen, REQUEST) == rng.choice(np.array([1, 2, 4]))


def test_min_predicted_latency_takes_the_smallest_prediction():
    seen = snapshot(running=[0, 0, 0])
    assert choose("min_predicted_latency", seen, known=estimates(3, chunk_s=[3, 1, 2])) == 1


def test_min_predicted_latency_counts_what_is_to_be_computed_in_batches_of_512():
    """Of 100 tokens 48 are found on replica 0; 460 others before them are one batch too many."""
    known = estimates(2, chunk_s=[1, 1])
    request = replace(REQUEST, found_tokens=np.array([48.0, 0.0]))
    for waiting, chosen in ((460, 0), (461, 1)):
        seen = snapshot(uncached_prefill_tokens=[waiting, 412.5])
        assert choose("min_predicted_latency", seen, known=known, request=request) == chosen


def test_oracle_takes_the_least_remaining_work_and_is_marked():
    seen = snapshot(pending_prefill_tokens=[2, 2, 2], remaining_output_tokens=[0, 8, 1])
    known = estimates(3, prefill_s_per_token=[3, 1, 1], decode_token_s=[0, 1, 1])
    assert choose("oracle_work", seen, known=known) == 2
    assert ORACLES == ("oracle_work", "clairvoyant")


def test_always_first_takes_replica_zero():
    assert choose("always_first", snapshot(running=[99, 0])) == 0
    assert CONTROLS == ("always_first",)


@pytest.mark.parametrize("name", ["least_outstanding", "least_tokens", "least_kv", "vllm_dp"])
def test_ties_do_not_herd_to_one_replica(name):
    seen = snapshot(running=[2, 2, 2, 2])
    shares = np.bincount([choose(name, seen, seed) for seed in range(400)], minlength=4) / 400
    assert shares.min() > 0.15


def test_scores_that_are_no_numbers_are_an_error():
    with pytest.raises(ValueError, match="not numbers"):
        choose("least_outstanding", snapshot(running=[np.nan, np.nan]))


def test_every_file_is_a_heuristic_with_a_number_of_its_own():
    assert tuple(HEURISTICS) == HEURISTIC_NAMES
    assert [one.number for one in HEURISTICS.values()] == list(range(len(HEURISTICS)))


def test_both_engines_ask_the_same_function():
    from vidur_ext.engine import routing as engine
    from vidur_ext.vidur import observation as vidur

    assert engine.ask is vidur.ask
    for heuristic in HEURISTICS.values():
        assert engine.HEURISTICS[heuristic.name] is vidur.HEURISTICS[heuristic.name]
