"""What was found of prefixes and how sessions fared, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidur_ext.evaluation.report import tables
from vidur_ext.evaluation.reuse import pooled_reuse, reuse_of
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import Sessions

ROWS = [[(1, 40)], [(1, 40), (2, 24)], [(1, 40)], [(3, 64)]]
"""Segment 1 is said three times: two whole blocks, and one token is always computed."""

SESSIONS = Sessions(
    np.array([7, 7, 8, 7]), np.array([0, 1, 0, 2]), np.array([-1, -1, -1, -1]), np.zeros(4)
)


@pytest.fixture
def run(make_run):
    prompts = Prompts.of(ROWS, [100, 101, 102, 103])
    table = RequestTable(np.arange(4.0), prompts.lengths, np.full(4, 2), prompts, SESSIONS)
    return replace(
        make_run("ppo"),
        table=table,
        arrived_at=table.arrived_at,
        scheduled_at=table.arrived_at,
        prefill_completed_at=table.arrived_at + np.array([1.0, 2.0, 4.0, 6.0]),
        completed_at=table.arrived_at + 10.0,
        found_tokens=np.array([0, 32, 16, 0]),
        preemptions=np.array([0, 1, 0, 2]),
    )


def test_what_was_found_and_what_was_computed_again(run) -> None:
    reuse = reuse_of(run, 0)
    assert (reuse.prompt_tokens, reuse.found_tokens) == (208, 48)
    assert reuse.hit_rate == pytest.approx(48 / 208)
    assert reuse.recomputed_tokens == 16, "the second block of the third prompt"
    assert reuse.preemptions == 3


def test_first_requests_do_not_count_but_are_repeated(run) -> None:
    reuse = reuse_of(run, 1)
    assert (reuse.prompt_tokens, reuse.found_tokens, reuse.recomputed_tokens) == (168, 48, 16)


def test_times_to_first_token_by_turn(run) -> None:
    reuse = reuse_of(run, 0)
    assert reuse.turns == (2, 1, 1)
    assert reuse.ttft_s == ((1.0 + 4.0) / 2, 2.0, 6.0)
    late = reuse_of(run, 3)
    assert late.ttft_s == (None, None, 6.0)


def test_fairness_is_jains_index_of_sessions(run) -> None:
    """Session 7 waits (1 + 2 + 6) / 3 = 3 s, session 8 waits 4 s: 7² / (2 (9 + 16))."""
    assert reuse_of(run, 0).fairness == pytest.approx(49 / 50)


def test_without_texts_and_sessions_there_is_nothing_to_say(make_run, compare) -> None:
    reuse = reuse_of(make_run("ppo"), 0)
    assert (reuse.found_tokens, reuse.recomputed_tokens, reuse.fairness) == (0, 0, None)
    assert reuse.turns == (4, 0, 0)
    runs = [make_run("ppo"), make_run("least_outstanding"), make_run("always_first")]
    assert tables.reuse_columns(compare(runs)) is None


def test_several_runs_are_taken_together(run) -> None:
    once, twice = reuse_of(run, 0), pooled_reuse([reuse_of(run, 0), reuse_of(run, 3)])
    assert twice.prompt_tokens == once.prompt_tokens + 64
    assert twice.turns == (2, 1, 2)
    assert twice.ttft_s == (2.5, 2.0, 6.0)
    assert twice.fairness == pytest.approx((49 / 50 + 1.0) / 2)


def test_the_report_shows_them_where_prompts_have_something_in_common(run, compare) -> None:
    other = replace(run, scheduler="least_outstanding", found_tokens=np.zeros(4, dtype=np.int64))
    columns = tables.reuse_columns(compare([run, other], warmup_fraction=0.0))
    assert columns is not None
    shown = dict(zip(columns.names, (cell.text for cell in columns.cells["ppo"]), strict=True))
    assert shown["found"] == "23.1 %"
    assert shown["recomputed"] == "7.7 %"
    assert shown["fairness"] == "0.980"
    assert columns.cells["least_outstanding"][0].text == "0.0 %"
