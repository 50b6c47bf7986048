"""What every heuristic prefers, on snapshots made by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from vidur_ext.routing.heuristics import (
    ROUTING_HEURISTICS,
    RoutingContext,
)
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, Quantity

REQUEST = ArrivingRequest(0.0, prompt_tokens=100, output_tokens=50)


@dataclass
class Estimates:
    """Fixed answers in the place of a latency estimator."""

    latency: list[float]
    work: list[float]

    def latency_s(self, snapshot, prompt_tokens):
        return np.array(self.latency)

    def remaining_work_s(self, snapshot):
        return np.array(self.work)


def snapshot(**rows: list[float]) -> ClusterSnapshot:
    replicas = len(next(iter(rows.values())))
    table = np.zeros((len(Quantity), replicas))
    table[Quantity.KV_BLOCKS_TOTAL] = 100.0
    for name, values in rows.items():
        table[Quantity[name.upper()]] = values
    return ClusterSnapshot(0.0, table)


def choose(name: str, seen: ClusterSnapshot, seed: int = 0, estimates=None) -> int:
    context = RoutingContext(np.random.default_rng(seed), estimates)
    return ROUTING_HEURISTICS[name].choose(seen, REQUEST, context)


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


def test_min_predicted_latency_takes_the_smallest_prediction():
    seen = snapshot(running=[0, 0, 0])
    assert choose("min_predicted_latency", seen, estimates=Estimates([3, 1, 2], [])) == 1


def test_oracle_takes_the_least_remaining_work_and_is_marked():
    seen = snapshot(running=[0, 0, 0])
    assert choose("oracle_work", seen, estimates=Estimates([], [3, 2, 1])) == 2
    marked = {name for name, rule in ROUTING_HEURISTICS.items() if rule.uses_output_lengths}
    assert marked == {"oracle_work"}


def test_always_first_takes_replica_zero():
    assert choose("always_first", snapshot(running=[99, 0])) == 0


@pytest.mark.parametrize("name", ["least_outstanding", "least_tokens", "least_kv", "vllm_dp"])
def test_ties_do_not_herd_to_one_replica(name):
    seen = snapshot(running=[2, 2, 2, 2])
    shares = np.bincount([choose(name, seen, seed) for seed in range(400)], minlength=4) / 400
    assert shares.min() > 0.15
