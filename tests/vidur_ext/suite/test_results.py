"""What the comparisons of several seeds are together, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.saturation import Saturation
from vidur_ext.suite.results import Ratios, SuiteResult, kind_of, scenario_result


def entry(name: str, e2e: float, ttft: float, **marks: bool) -> dict[str, Any]:
    """Return a scheduler as ``comparison.json`` has it."""
    plain = {"policy": False, "planner": False, "control": False, "uses_output_lengths": False}
    ratios = {"e2e_vs_best_heuristic": e2e, "ttft_p99_vs_best_heuristic": ttft}
    found = {"pooled": {"reuse": {"hit_rate": ttft / 10}}}
    return {"name": name, **plain, **marks, **ratios, **found}


def comparison(best: str, *entries: dict[str, Any]) -> dict[str, Any]:
    facts = {"Cluster": "4 x a100", "Workload": "22/s", "Seed": "0", "Config digest": "ab"}
    return {"best_heuristic": best, "schedulers": list(entries), "facts": facts}


SEED_0 = comparison(
    "least_tokens",
    entry("oracle_work", 0.8, 0.5, uses_output_lengths=True),
    entry("ppo", 0.98, 1.1, policy=True),
    entry("least_tokens", 1.0, 1.0),
    entry("vllm_dp", 1.1, 1.25),
    entry("always_first", 2.0, 4.0, control=True),
)
SEED_1 = comparison(
    "vllm_dp",
    entry("oracle_work", 0.5, 0.25, uses_output_lengths=True),
    entry("vllm_dp", 1.0, 1.0),
    entry("least_tokens", 1.2, 1.5),
    entry("ppo", 1.25, 0.75, policy=True),
    entry("always_first", 5.0, 10.0, control=True),
)


@pytest.fixture
def result():
    return scenario_result("busy", [SEED_0, SEED_1], Saturation(26.5, (15.9, 29.15)))


def test_figures_of_a_scheduler_are_in_the_order_of_the_seeds(result) -> None:
    assert result.best_heuristics == ("least_tokens", "vllm_dp")
    ratios = {one.name: (one.e2e.by_seed, one.ttft_p99.by_seed) for one in result.schedulers}
    assert ratios["ppo"] == ((0.98, 1.25), (1.1, 0.75))
    assert ratios["vllm_dp"] == ((1.1, 1.0), (1.25, 1.0))
    assert {one.name: one.hit_rate for one in result.schedulers}["ppo"] == pytest.approx(
        (0.11, 0.075)
    )


def test_schedulers_are_sorted_by_the_median_of_mean_e2e(result) -> None:
    # Medians: (0.8 + 0.5) / 2, (1.1 + 1.0) / 2, (1.0 + 1.2) / 2, (0.98 + 1.25) / 2, 3.5.
    names = [one.name for one in result.schedulers]
    assert names == ["oracle_work", "vllm_dp", "least_tokens", "ppo", "always_first"]


def test_every_scheduler_is_called_what_it_is() -> None:
    kinds = {
        "heuristic": entry("least_kv", 1.0, 1.0),
        "oracle": entry("oracle_work", 1.0, 1.0, uses_output_lengths=True),
        "control": entry("always_first", 1.0, 1.0, control=True),
        "planner": entry("lookahead", 1.0, 1.0, planner=True),
        "policy": entry("ppo", 1.0, 1.0, policy=True, uses_output_lengths=True),
    }
    assert {kind: kind_of(one) for kind, one in kinds.items()} == {kind: kind for kind in kinds}


def test_the_worst_seed_is_the_one_with_the_largest_ratio() -> None:
    ratios = Ratios((0.97, 1.02, 0.95))
    assert (ratios.median, ratios.worst, ratios.worst_seed) == (0.97, 1.02, 1)


def test_seeds_that_compare_other_schedulers_are_refused() -> None:
    other = comparison("vllm_dp", entry("ppo", 1.0, 1.0), entry("vllm_dp", 1.0, 1.0))
    with pytest.raises(UserError, match="scenario busy: seed 1 compares ppo, vllm_dp, seed 0"):
        scenario_result("busy", [SEED_0, other], None)


def test_the_json_holds_a_list_over_seeds_for_every_scheduler(result) -> None:
    document = SuiteResult(2, (result,), {"trace": "no file"}).to_dict()
    assert document["seeds"] == [0, 1]
    assert document["scenarios"]["busy"]["ppo"] == {
        "e2e_vs_best_heuristic": [0.98, 1.25],
        "ttft_p99_vs_best_heuristic": [1.1, 0.75],
        "hit_rate": [pytest.approx(0.11), pytest.approx(0.075)],
    }
    assert document["scenarios"]["busy"].keys() == {
        "ppo", "vllm_dp", "least_tokens", "oracle_work", "always_first",
    }  # fmt: skip
    about = document["about"]["busy"]
    assert about["best_heuristics"] == ["least_tokens", "vllm_dp"]
    assert about["saturation_requests_per_s"] == 26.5
    assert about["loads"] == pytest.approx([0.6, 1.1])
    assert about["facts"] == {"Cluster": "4 x a100", "Workload": "22/s"}
    assert document["skipped"] == {"trace": "no file"}
