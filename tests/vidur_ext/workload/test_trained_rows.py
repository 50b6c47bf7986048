"""Requests of a trace that are held out now and were trained on before are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidur_ext.config.sections import WorkloadSection
from vidur_ext.workload.trained_rows import doubt_about_held_out, trace_digest, trained_rows


def workload(path: Path, holdout: float = 0.2, requests: int = 100) -> WorkloadSection:
    rows = [f"{second},10,10" for second in range(requests)]
    header = "arrived_at,num_prefill_tokens,num_decode_tokens"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return WorkloadSection(source="trace", trace_file=str(path), holdout_fraction=holdout)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace.csv"


def test_what_was_not_held_out_may_have_been_trained_on(path):
    section = workload(path)
    assert trained_rows(section, {}) == {trace_digest(section): 80}
    assert trained_rows(WorkloadSection(), {"other": 3}) == {"other": 3}


def test_a_run_on_one_trace_leaves_no_doubt(path):
    section = workload(path)
    assert doubt_about_held_out(section, trained_rows(section, {})) is None
    assert doubt_about_held_out(section, {}) is None
    assert doubt_about_held_out(WorkloadSection(), {"other": 3}) is None


def test_a_larger_held_out_part_counts_what_was_trained_on(path):
    trained = trained_rows(workload(path, 0.2), {})
    larger = workload(path, 0.5)
    assert doubt_about_held_out(larger, trained) == (
        "30 of the 50 requests held out have been trained on"
    )
    assert trained_rows(larger, trained) == trained, "and still counts after the next stage"
    smaller = workload(path, 0.1)
    assert doubt_about_held_out(smaller, trained) is None


def test_another_content_under_the_same_name_is_another_trace(path):
    before = workload(path, requests=200)
    trained = trained_rows(before, {})
    shorter = workload(path, requests=100)
    assert trace_digest(shorter) not in trained
    assert "cannot be told" in doubt_about_held_out(shorter, trained_rows(shorter, trained))
