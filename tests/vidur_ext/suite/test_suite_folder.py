"""A folder holds one suite: it may grow, nothing is changed or left out, and one works in it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.suite.folder import SuiteFolder, open_suite
from vidur_ext.suite.plan import Plan


@pytest.fixture
def folder(tmp_path) -> SuiteFolder:
    return SuiteFolder(tmp_path / "suite")


def begin(folder: SuiteFolder, plan: Plan) -> dict:
    with open_suite(folder, plan):
        return json.loads(folder.record.read_text())


def refusal(folder: SuiteFolder, plan: Plan) -> str:
    before = folder.record.read_bytes()
    with pytest.raises(UserError) as refused:
        begin(folder, plan)
    assert folder.record.read_bytes() == before, "a start that is refused has changed nothing"
    return str(refused.value)


def test_a_folder_notes_what_it_is_of(folder, plan) -> None:
    record = begin(folder, plan("one", "two", seeds=3))
    assert (record["seeds"], list(record["scenarios"])) == (3, ["one", "two"])
    assert record["scenarios"]["one"]["training.total_requests"] == 80
    assert "training.seed" not in record["scenarios"]["one"]
    assert record["versions"].keys() >= {"python", "torch", "vidur"}


def test_the_same_suite_may_begin_again_and_grow(folder, plan) -> None:
    begin(folder, plan("one", seeds=2))
    assert begin(folder, plan("one", seeds=2))["seeds"] == 2
    record = begin(folder, plan("two", "one", seeds=3))
    assert (record["seeds"], set(record["scenarios"])) == (3, {"one", "two"})


def test_no_seed_may_be_left_out(folder, plan) -> None:
    begin(folder, plan("one", seeds=3))
    assert "3 seeds there, 2 now: none may be left out" in refusal(folder, plan("one", seeds=2))


def test_no_scenario_may_be_left_out(folder, plan) -> None:
    begin(folder, plan("one", "two"))
    assert "scenario two is there and would be left out" in refusal(folder, plan("one"))


def test_other_settings_are_named(folder, plan) -> None:
    begin(folder, plan("one"))
    text = refusal(folder, plan("one", workload={"qps": 9.0}, cluster={"num_replicas": 2}))
    assert "one: workload.qps: 24.5 there, 9.0 now" in text
    assert "one: cluster.num_replicas: 3 there, 2 now" in text
    assert "Choose another --output-dir" in text


def test_tuned_rivals_and_others_are_not_mixed(folder, plan) -> None:
    begin(folder, plan("one"))
    assert "without --tune there" in refusal(folder, replace(plan("one"), tune=True))


def test_other_versions_are_named(folder, plan) -> None:
    record = begin(folder, plan("one"))
    record["versions"]["torch"] = "0.1"
    folder.record.write_text(json.dumps(record))
    assert "torch 0.1 there" in refusal(folder, plan("one"))


@pytest.mark.parametrize("content", ["", "[]", "{}", "not JSON"])
def test_what_is_no_record_is_refused(folder, plan, content) -> None:
    folder.path.mkdir()
    folder.record.write_text(content)
    assert "is no suite's record, or damaged" in refusal(folder, plan("one"))


def test_a_record_of_another_schema_is_refused(folder, plan) -> None:
    folder.path.mkdir()
    folder.record.write_text('{"schema_version": 99}')
    assert "has schema version 99, not 2" in refusal(folder, plan("one"))


def test_a_folder_has_one_suite_at_a_time(folder, plan) -> None:
    with open_suite(folder, plan("one")):
        text = refusal(folder, plan("one"))
        assert text.startswith(f"{folder.path}: process {os.getpid()} is running a suite there")
    begin(folder, plan("one"))


def test_a_refused_start_leaves_the_folder_free(folder, plan) -> None:
    begin(folder, plan("one", seeds=2))
    refusal(folder, plan("one"))
    begin(folder, plan("one", seeds=2))


def test_a_folder_that_cannot_be_made_is_named(plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/suite: the suite cannot write there"):
        open_suite(SuiteFolder(tmp_path / "file" / "suite"), plan("one"))
