"""A comparison is whole, sorted, stable in its schema, or it is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.comparison import AgainstBest, Comparison
from vidur_ext.evaluation.metrics import COMPARED_METRICS
from vidur_ext.evaluation.run_result import RunResult, Served

SUMMARY_KEYS = {
    "requests", *COMPARED_METRICS, "requests_per_s", "output_tokens_per_s", "makespan_s",
    "replica_shares", "imbalance", "load", "reuse", "decisions_per_second",
}  # fmt: skip


def test_every_missing_run_is_named(compare, small_runs: list[RunResult]) -> None:
    lost = {("ppo", 1), ("always_first", 0)}
    kept = [run for run in small_runs if (run.scheduler, run.seed) not in lost]
    with pytest.raises(UserError, match="missing") as error:
        compare(kept)
    assert "(ppo, seed 1)" in str(error.value)
    assert "(always_first, seed 0)" in str(error.value)
    assert "(ppo, seed 0)" not in str(error.value)


def test_a_scheduler_without_any_run_is_named(compare, small_runs: list[RunResult]) -> None:
    expected = ["least_outstanding", "ppo", "oracle_work", "always_first", "lor"]
    with pytest.raises(UserError, match=r"missing: \(lor, seed 0\), \(lor, seed 1\)"):
        compare(small_runs, expected_schedulers=expected)


def test_duplicates_and_strangers_are_named(compare, small_runs: list[RunResult]) -> None:
    with pytest.raises(UserError, match=r"there more than once: \(always_first, seed 0\)"):
        compare([*small_runs, small_runs[0]])
    with pytest.raises(UserError, match=r"not expected: \(always_first, seed 0\)"):
        compare(small_runs, expected_schedulers=["least_outstanding", "ppo", "oracle_work"])


@pytest.mark.parametrize("field", ["arrived_at", "prefill_tokens", "decode_tokens"])
def test_runs_of_one_seed_must_have_met_the_same_requests(compare, make_run, field: str) -> None:
    changed = getattr(make_run().table, field).copy()
    changed[2] -= 1
    changes = {field: np.sort(changed), "scheduled_at": [0.0, 1.0, 2.5, 3.0]}
    runs = [make_run("least_outstanding"), make_run("ppo", **changes)]
    told = rf"ppo and least_outstanding .* seed 0: {field} differs first at request"
    with pytest.raises(UserError, match=told):
        compare(runs)


def test_runs_of_different_length_are_refused(compare, make_run) -> None:
    whole = make_run("least_outstanding")
    arrays = {name: getattr(whole, name)[:3] for name in Served._fields}
    arrays["table"] = whole.table.slice(0, 3)
    with pytest.raises(UserError, match=r"in length \(3 and 4 requests\)"):
        compare([whole, replace(make_run("ppo"), **arrays)])


def test_clusters_of_different_size_are_refused(compare, make_run) -> None:
    runs = [make_run("least_outstanding"), make_run("ppo", num_replicas=3)]
    with pytest.raises(UserError, match="ppo on seed 0 had 3 replicas, least_outstanding"):
        compare(runs)


def test_a_scheduler_is_an_oracle_on_all_seeds_or_on_none(compare, make_run) -> None:
    runs = [make_run("least_outstanding", seed) for seed in (0, 1)]
    runs += [make_run("ppo", 0), make_run("ppo", 1, uses_output_lengths=True)]
    with pytest.raises(UserError, match="ppo knew true output lengths on some seeds"):
        compare(runs)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"baseline": "lor"}, "baseline 'lor' must be one of"),
        ({"warmup_fraction": 1.0}, "warmup_fraction is 1.0"),
        ({"bootstrap_samples": 0}, "bootstrap_samples is 0"),
        ({"expected_seeds": [0, 0]}, "must each be named once"),
        ({"expected_seeds": []}, "at least one seed"),
    ],
)
def test_impossible_arguments_are_refused(compare, small_runs, changes, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        compare(small_runs, **changes)


def test_schedulers_are_sorted_by_mean_latency(small_comparison: Comparison) -> None:
    names = [one.name for one in small_comparison.schedulers]
    assert names == ["oracle_work", "ppo", "least_outstanding", "always_first"]
    assert small_comparison["oracle_work"].uses_output_lengths
    assert small_comparison["always_first"].control
    assert small_comparison["ppo"].learned


def test_the_policy_meets_everyone_and_everyone_meets_the_baseline(
    small_comparison: Comparison,
) -> None:
    met = {one.name: set(one.versus) for one in small_comparison.schedulers}
    assert met == {
        "oracle_work": {"least_outstanding"},
        "ppo": {"oracle_work", "least_outstanding", "always_first"},
        "least_outstanding": set(),
        "always_first": {"least_outstanding"},
    }
    assert small_comparison["ppo"].versus["least_outstanding"]["e2e_mean_s"].win
    assert small_comparison["ppo"].versus["oracle_work"]["e2e_mean_s"].loss


def shifted(run: RunResult, ttft_s: float, e2e_s: float) -> RunResult:
    """Return a run of which every request has this TTFT and this E2E."""
    first, last = run.arrived_at + ttft_s, run.arrived_at + e2e_s
    return dataclasses.replace(run, prefill_completed_at=first, completed_at=last)


def test_everyone_is_set_against_the_best_realistic_heuristic(compare, make_run) -> None:
    """Mean E2E: oracle_work 2 s, ppo 3.6 and 4.2, least_kv 4, round_robin 5, always_first 9."""
    latencies = {
        "round_robin": ((1.0, 5.0), (1.0, 5.0)),
        "least_kv": ((1.0, 4.0), (1.0, 4.0)),
        "oracle_work": ((0.5, 2.0), (0.5, 2.0)),
        "always_first": ((3.0, 9.0), (3.0, 9.0)),
        "ppo": ((1.5, 3.6), (1.5, 4.2)),
        "behaviour_cloning": ((1.0, 4.4), (1.0, 4.4)),
    }
    runs = [
        shifted(
            make_run(
                name, seed, scheduled_at=[0, 1, 2, 3], uses_output_lengths=name == "oracle_work"
            ),
            *pair,
        )
        for name, pairs in latencies.items()
        for seed, pair in enumerate(pairs)
    ]
    comparison = compare(runs, baseline="round_robin", warmup_fraction=0.0)
    assert comparison.best_heuristic == "least_kv"
    found = {one.name: one.against_best for one in comparison.schedulers}
    assert found["ppo"].e2e == pytest.approx(3.9 / 4.0)
    assert found["ppo"].ttft_p99 == pytest.approx(1.5)
    assert found["ppo"].workloads_won == 1
    assert found["behaviour_cloning"].e2e == pytest.approx(1.1)
    assert found["behaviour_cloning"].workloads_won == 0
    assert found["oracle_work"].workloads_won == 2
    assert found["least_kv"] == AgainstBest(1.0, 1.0, 0)
    assert {one.name for one in comparison.schedulers if one.policy} == {
        "ppo", "behaviour_cloning",
    }  # fmt: skip
    assert comparison["behaviour_cloning"].versus["least_kv"]["e2e_mean_s"].loss


def test_a_planner_is_no_heuristic(compare, small_runs, monkeypatch) -> None:
    monkeypatch.setattr("vidur_ext.evaluation.comparison.PLANNERS", ("least_outstanding",))
    comparison = compare(small_runs)
    assert comparison["least_outstanding"].planner
    assert not comparison["least_outstanding"].realistic
    assert comparison.best_heuristic is None
    assert comparison["ppo"].against_best == AgainstBest(None, None, None)


def test_a_control_that_does_not_lose_is_reported(compare, make_run, small_comparison) -> None:
    assert small_comparison.toothless_controls == ()
    equal = compare([make_run("least_outstanding"), make_run("always_first")])
    assert equal.toothless_controls == ("always_first",)


def test_the_order_of_the_runs_does_not_matter(compare, small_runs, small_comparison) -> None:
    expected = list(dict.fromkeys(run.scheduler for run in small_runs))
    shuffled = compare(small_runs[::-1], expected_schedulers=expected)
    assert shuffled.to_dict() == small_comparison.to_dict()


def test_the_schema_is_stable(small_comparison: Comparison) -> None:
    tree = json.loads(json.dumps(small_comparison.to_dict(), allow_nan=False))
    assert tree["schema_version"] == 3
    assert set(tree) == {
        "schema_version", "engine", "baseline", "best_heuristic", "num_replicas", "devices", "slo",
        "warmup_fraction", "bootstrap", "indifferent", "toothless_controls", "workloads",
            "schedulers",
    }  # fmt: skip
    assert tree["slo"] == {"ttft_s": 0.3, "tbt_s": 0.05}
    assert tree["bootstrap"] == {"samples": 60, "confidence": 0.95}
    assert set(tree["workloads"][0]) == {"seed", "requests", "counted_requests", "digest"}
    assert [(w["seed"], w["counted_requests"]) for w in tree["workloads"]] == [(0, 108), (1, 108)]
    for scheduler in tree["schedulers"]:
        assert set(scheduler) == {
            "name", "learned", "policy", "planner", "control", "uses_output_lengths",
            "e2e_vs_best_heuristic", "ttft_p99_vs_best_heuristic", "workloads_won", "pooled",
            "intervals", "per_seed", "versus",
        }  # fmt: skip
        assert set(scheduler["pooled"]) == SUMMARY_KEYS
        assert set(scheduler["intervals"]) == set(COMPARED_METRICS)
        assert [set(run) for run in scheduler["per_seed"]] == [SUMMARY_KEYS | {"seed"}] * 2
        for differences in scheduler["versus"].values():
            assert set(differences) == set(COMPARED_METRICS)
            assert set(differences["e2e_p99_s"]) == {
                "difference", "interval", "ratio", "ratio_interval", "win", "loss", "material",
            }  # fmt: skip


def test_the_tree_holds_plain_python_only(small_comparison: Comparison) -> None:
    def check(node: object) -> None:
        assert type(node) in (dict, list, str, int, float, bool, type(None)), type(node)
        if isinstance(node, dict):
            assert all(type(key) is str for key in node)
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                check(child)

    check(small_comparison.to_dict())
