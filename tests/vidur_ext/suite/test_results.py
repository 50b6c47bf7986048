"""Figures against the best heuristic, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.saturation import Saturation
from vidur_ext.suite.results import Ratios, SuiteResult, best_heuristic, kind_of, scenario_result


def entry(name: str, e2e: float, ttft: float, **marks: bool) -> dict[str, Any]:
    """Return a scheduler as ``comparison.json`` has it."""
    plain = {"control": False, "uses_output_lengths": False}
    return {"name": name, **plain, **marks, "pooled": {"e2e_mean_s": e2e, "ttft_p99_s": ttft}}


def comparison(*entries: dict[str, Any]) -> dict[str, Any]:
    facts = {"Cluster": "4 x a100", "Workload": "22/s", "Seed": "0", "Config digest": "ab"}
    return {"schedulers": list(entries), "facts": facts}


SEED_0 = comparison(
    entry("oracle_work", 4.0, 1.0, uses_output_lengths=True),
    entry("least_tokens", 5.0, 2.0),
    entry("ppo", 4.9, 2.2),
    entry("vllm_dp", 5.5, 2.5),
    entry("always_first", 1.0, 1.0, control=True),
)
SEED_1 = comparison(
    entry("vllm_dp", 8.0, 4.0),
    entry("ppo", 10.0, 3.0),
    entry("oracle_work", 4.0, 1.0, uses_output_lengths=True),
    entry("always_first", 40.0, 40.0, control=True),
    entry("least_tokens", 8.8, 5.0),
)


@pytest.fixture
def result():
    return scenario_result("busy", [SEED_0, SEED_1], Saturation(26.5, (15.9, 29.15)))


def test_each_seed_is_set_against_the_best_heuristic_of_its_own_workloads(result) -> None:
    assert result.best_heuristics == ("least_tokens", "vllm_dp")
    ratios = {one.name: (one.e2e.by_seed, one.ttft_p99.by_seed) for one in result.schedulers}
    assert ratios["ppo"] == ((4.9 / 5.0, 10.0 / 8.0), (2.2 / 2.0, 3.0 / 4.0))
    assert ratios["vllm_dp"] == ((5.5 / 5.0, 1.0), (2.5 / 2.0, 1.0))
    assert ratios["least_tokens"] == ((1.0, 8.8 / 8.0), (1.0, 5.0 / 4.0))


def test_schedulers_are_sorted_by_the_median_of_mean_e2e(result) -> None:
    # Medians: oracle (0.8 + 0.5) / 2, least_tokens 1.05, vllm_dp 1.05, ppo 1.115, always 2.6.
    names = [one.name for one in result.schedulers]
    assert (names[0], names[3:]) == ("oracle_work", ["ppo", "always_first"])


def test_oracles_controls_and_planners_are_no_heuristics_to_beat() -> None:
    kinds = {
        "heuristic": entry("least_kv", 3.0, 1.0),
        "oracle": entry("oracle_work", 1.0, 1.0, uses_output_lengths=True),
        "control": entry("always_first", 1.0, 1.0, control=True),
        "planner": entry("vllm_dp", 1.0, 1.0, planner=True),
        "policy": entry("behaviour_cloning", 1.0, 1.0),
    }
    assert {kind: kind_of(one) for kind, one in kinds.items()} == {kind: kind for kind in kinds}
    assert best_heuristic("busy", list(kinds.values())) == "least_kv"


def test_without_a_heuristic_there_is_nothing_to_be_set_against() -> None:
    with pytest.raises(UserError, match=r"scenario busy: evaluation.schedulers names no heuristic"):
        best_heuristic("busy", [entry("ppo", 1.0, 1.0)])


def test_the_worst_seed_is_the_one_with_the_largest_ratio() -> None:
    ratios = Ratios((0.97, 1.02, 0.95))
    assert (ratios.median, ratios.worst, ratios.worst_seed) == (0.97, 1.02, 1)


def test_seeds_that_compare_other_schedulers_are_refused() -> None:
    other = comparison(entry("ppo", 1.0, 1.0), entry("least_tokens", 1.0, 1.0))
    with pytest.raises(UserError, match="scenario busy: seed 1 compares ppo, least_tokens, seed 0"):
        scenario_result("busy", [SEED_0, other], None)


def test_the_json_holds_a_list_over_seeds_for_every_scheduler(result) -> None:
    document = SuiteResult(2, (result,), {"trace": "no file"}).to_dict()
    assert document["seeds"] == [0, 1]
    ppo = document["scenarios"]["busy"]["ppo"]
    assert ppo["e2e_vs_best_heuristic"] == pytest.approx([0.98, 1.25])
    assert ppo["ttft_p99_vs_best_heuristic"] == pytest.approx([1.1, 0.75])
    assert document["scenarios"]["busy"].keys() == {
        "ppo", "vllm_dp", "least_tokens", "oracle_work", "always_first",
    }  # fmt: skip
    about = document["about"]["busy"]
    assert about["best_heuristics"] == ["least_tokens", "vllm_dp"]
    assert about["saturation_requests_per_s"] == 26.5
    assert about["loads"] == pytest.approx([0.6, 1.1])
    assert about["facts"] == {"Cluster": "4 x a100", "Workload": "22/s"}
    assert document["skipped"] == {"trace": "no file"}
