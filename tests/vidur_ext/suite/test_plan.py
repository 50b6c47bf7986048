"""Which cells a suite has, and what it refuses to plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.suite.plan import PLACES, SET_BY_SUITE, plan_suite

TRACE = {"workload": {"source": "trace", "trace_file": "nowhere.csv"}}


def test_cells_are_scenarios_by_seeds_with_the_first_seed_of_each_first(plan, tmp_path) -> None:
    cells = plan("one", "two", seeds=2).cells(tmp_path / "suite", {})
    assert [cell.name for cell in cells] == [
        "one, seed 0",
        "two, seed 0",
        "one, seed 1",
        "two, seed 1",
    ]
    assert cells[3].folder.path == tmp_path / "suite" / "two" / "seed_1"


def test_a_cell_is_its_scenario_but_for_what_makes_it_a_cell(scenario, plan, tmp_path) -> None:
    [_, cell] = plan(seeds=2).cells(tmp_path / "suite", {})
    of_file, of_cell = load_config(scenario()).settings(), cell.config.settings()
    differing = {name for name in of_file if of_file[name] != of_cell[name]}
    assert set(PLACES) <= differing <= set(SET_BY_SUITE)
    folder = str(cell.folder.path)
    assert [of_cell[name] for name in PLACES] == [1, folder, f"{folder}/checkpoints"]
    assert of_cell["training.torch_threads"] == of_cell["parallel_training.num_workers"] == 1


def test_an_override_reaches_every_scenario(scenario) -> None:
    files = {name: scenario(name) for name in ("one", "two")}
    plan = plan_suite(files, 1, ["workload.qps=7"], asked_for=True)
    assert [config.workload.qps for config in plan.scenarios.values()] == [7.0, 7.0]


@pytest.mark.parametrize("key", SET_BY_SUITE)
def test_what_the_suite_sets_itself_cannot_be_set(scenario, key) -> None:
    with pytest.raises(UserError, match=f"--set {key}=1: the suite sets {key} itself"):
        plan_suite({"small": scenario()}, 1, [f"{key}=1"], asked_for=True)


def test_a_scenario_without_a_comparison_is_refused(scenario) -> None:
    file = scenario(evaluation={"enabled": False})
    with pytest.raises(UserError, match=r"small\.json: evaluation\.enabled=false leaves"):
        plan_suite({"small": file}, 1, asked_for=True)


def test_a_scenario_without_a_heuristic_is_refused(scenario) -> None:
    only = {"schedulers": ["oracle_work", "always_first"], "baseline": "always_first"}
    file = scenario(evaluation=only)
    with pytest.raises(UserError, match="names nothing that a router could be"):
        plan_suite({"small": file}, 1, asked_for=True)


def test_a_scenario_whose_trace_is_not_there_is_left_out_and_says_why(scenario) -> None:
    files = {"small": scenario(), "trace": scenario("trace", **TRACE)}
    plan = plan_suite(files, 1, asked_for=False)
    assert list(plan.scenarios) == ["small"]
    assert plan.skipped == {
        "trace": "its trace nowhere.csv is not there: fetch it (docs/workloads.md), or name one "
        "with --trace"
    }


def test_a_scenario_that_was_asked_for_is_not_left_out(scenario) -> None:
    with pytest.raises(UserError, match=r"^scenario trace: its trace nowhere.csv is not there"):
        plan_suite({"trace": scenario("trace", **TRACE)}, 1, asked_for=True)


def test_a_given_trace_is_replayed_where_a_trace_is(scenario, tmp_path: Path) -> None:
    given = tmp_path / "a trace.csv"
    rows = "".join(f"{number},100,10\n" for number in range(2000))
    given.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}")
    files = {"small": scenario(), "trace": scenario("trace", **TRACE)}
    plan = plan_suite(files, 1, traces=[str(given)], asked_for=False)
    assert plan.scenarios["trace"].workload.trace_file == str(given)
    assert plan.scenarios["small"].workload.source == "synthetic"
    assert plan.skipped == {}


def test_where_several_replay_traces_each_is_told_its_own(scenario, tmp_path: Path) -> None:
    rows = "".join(f"{number},100,10\n" for number in range(2000))
    for name in ("a", "b"):
        csv = f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}"
        (tmp_path / f"{name}=.csv").write_text(csv)
    files = {name: scenario(name, **TRACE) for name in ("one", "two")}
    traces = [f"one={tmp_path}/a=.csv", f"two={tmp_path}/b=.csv"]
    plan = plan_suite(files, 1, traces=traces, asked_for=False)
    replayed = [config.workload.trace_file for config in plan.scenarios.values()]
    assert replayed == [f"{tmp_path}/a=.csv", f"{tmp_path}/b=.csv"]
    with pytest.raises(UserError, match=r"--trace a.csv: say which .* --trace one=FILE --trace"):
        plan_suite(files, 1, traces=["a.csv"], asked_for=False)


def test_rivals_are_tuned_only_where_there_are_any(scenario) -> None:
    with pytest.raises(UserError, match="--tune: small compare no heuristic that has settings"):
        plan_suite({"small": scenario()}, 1, asked_for=True, tune=True)


def test_rivals_are_not_tuned_on_vidur(scenario) -> None:
    rivals = {"schedulers": ["bounded_hash", "least_outstanding"]}
    file = scenario(evaluation=rivals, simulation={"engine": "vidur"})
    with pytest.raises(UserError, match=r'scenario small: rivals are tuned on .* not on "vidur"'):
        plan_suite({"small": file}, 1, asked_for=True, tune=True)


def test_what_a_scenario_could_not_end_well_with_is_said_before_any_begins(scenario) -> None:
    files = {"small": scenario(), "few": scenario("few", cluster={"num_blocks": 100})}
    with pytest.raises(UserError, match=r"^scenario few: a request may have 8192 tokens"):
        plan_suite(files, 1, asked_for=True)


def test_a_trace_that_nothing_replays_is_refused(scenario, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of small replays a trace"):
        plan_suite({"small": scenario()}, 1, traces=["x.csv"], asked_for=True)
