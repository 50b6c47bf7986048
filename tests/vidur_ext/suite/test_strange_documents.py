"""Whatever stands in a suite's record or in a cell's comparison, it is refused in words or read."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.comparison import COMPARISON_VERSION
from vidur_ext.run_folder import RunFolder
from vidur_ext.suite.folder import SuiteFolder, open_suite
from vidur_ext.suite.plan import Cell
from vidur_ext.suite.results import collect

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda child: st.one_of(
        st.lists(child, max_size=2), st.dictionaries(st.text(max_size=4), child, max_size=2)
    ),
    max_leaves=4,
)
ENTRY = {
    "name": "ppo",
    "policy": True,
    "planner": False,
    "control": False,
    "uses_output_lengths": False,
    "e2e_vs_best_heuristic": 0.9,
    "ttft_p99_vs_best_heuristic": 1.1,
    "pooled": {"reuse": {"hit_rate": 0.5}},
}
COMPARISON = {
    "schema_version": COMPARISON_VERSION,
    "best_heuristic": "least_tokens",
    "facts": {"Cluster": "4 x a100"},
    "schedulers": [ENTRY],
}
FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def changed(document: dict, key: str, value: object) -> dict:
    """Return a document with a key removed, for the value "gone", or replaced."""
    rest = {name: old for name, old in document.items() if name != key}
    return rest if value == "gone" else {**rest, key: value}


@FUZZ
@given(
    key=st.sampled_from(["seeds", "versions", "scenarios", "schema_version", "more"]),
    value=st.one_of(st.just("gone"), VALUES),
)
def test_a_record_is_refused_or_read(tmp_path, plan, key, value):
    folder = SuiteFolder(tmp_path / "suite")
    planned = plan("small")
    open_suite(folder, planned).release()
    record = json.loads(folder.record.read_bytes())
    folder.record.write_text(json.dumps(changed(record, key, value)), encoding="utf-8")
    try:
        open_suite(folder, planned).release()
    except UserError:
        folder.record.unlink()


@pytest.fixture
def collected(tmp_path, plan):
    """Return what is collected of one cell whose comparison is a document."""
    planned = plan("small")
    run = RunFolder(tmp_path / "cell")
    run.comparison.mkdir(parents=True)
    cell = Cell("small", 0, planned.scenarios["small"], run)

    def collect_it(document: object):
        run.comparison_json.write_text(json.dumps(document), encoding="utf-8")
        return collect(planned, [cell], {})

    return collect_it


def test_a_whole_comparison_is_collected(collected):
    [scenario] = collected(COMPARISON).scenarios
    assert scenario.best_heuristics == ("least_tokens",)


@pytest.mark.parametrize("key", [*COMPARISON, *ENTRY])
def test_a_comparison_without_a_key_is_refused_with_the_way_out(collected, key):
    document = changed(COMPARISON, key, "gone")
    if key in ENTRY:
        document["schedulers"] = [changed(ENTRY, key, "gone")]
    with pytest.raises(UserError, match="to compare again"):
        collected(document)


@FUZZ
@given(key=st.sampled_from([*COMPARISON, *ENTRY]), value=VALUES)
def test_a_comparison_is_refused_or_collected(collected, key, value):
    document = dict(COMPARISON)
    if key in ENTRY:
        document["schedulers"] = [changed(ENTRY, key, value)]
    else:
        document = changed(COMPARISON, key, value)
    problem = None
    try:
        collected(document)
    except UserError as refused:
        problem = str(refused)
    assert problem is None or "to compare again" in problem
