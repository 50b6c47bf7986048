"""Policies of several trainings are judged together: the first is what the report is about."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.page import render_page
from vidur_ext.evaluation.report.plots.drawing import ANSWER, draw_plots
from vidur_ext.evaluation.report.tables import best_heuristic_columns, other_policy_columns
from vidur_ext.evaluation.report.terminal import print_comparison
from vidur_ext.evaluation.statistics import PairedDifference

SLOWNESS = {"first": 0.8, "second $a": 0.9, "least_outstanding": 1.0, "round_robin": 1.5}


@pytest.fixture(scope="module")
def runs(make_random_run):
    return [make_random_run(name, seed, slow) for name, slow in SLOWNESS.items() for seed in (0, 1)]


@pytest.fixture(scope="module")
def two(runs, compare) -> Comparison:
    return compare(runs, under_test="first")


def test_every_policy_is_set_against_the_best_heuristic_and_the_first_policy(two) -> None:
    assert [one.name for one in two.schedulers if one.policy] == ["first", "second $a"]
    assert [one.name for one in two.schedulers if one.learned] == ["first"]
    assert two.best_heuristic == "least_outstanding"
    assert set(two["second $a"].versus) == {"least_outstanding", "first"}
    assert set(two["first"].versus) == set(SLOWNESS) - {"first"}
    assert set(best_heuristic_columns(two).cells) == {"first", "second $a"}
    assert set(other_policy_columns(two).cells) == {"second $a"}


def test_the_differences_of_two_policies_are_one_seen_from_both_sides(two) -> None:
    there = two["second $a"].versus["first"]["e2e_mean_s"]
    back = two["first"].versus["second $a"]["e2e_mean_s"]
    assert isinstance(there, PairedDifference)
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval.to_list() == pytest.approx([-back.interval.high, -back.interval.low])
    assert there.loss
    assert back.win


def test_all_policies_are_on_the_page_and_the_terminal(two, runs) -> None:
    drawn = draw_plots(two, runs)
    assert ANSWER in drawn, "a dollar in a name is no formula"
    page = render_page(two, dict.fromkeys(drawn, b""), {})
    stream = io.StringIO()
    print_comparison(two, Console(file=stream, width=80))
    difference = wording.change("e2e_mean_s", two["second $a"].versus["first"]["e2e_mean_s"])
    for text, title in (
        (page, "Other policies against first"),
        (stream.getvalue(), "Against first"),
    ):
        after = text[text.index(title) :]
        assert "second $a" in after
        assert difference in after
    assert wording.headline(two).startswith("first is better than the best heuristic")


def test_without_another_policy_there_is_no_table_of_others(small_comparison) -> None:
    assert other_policy_columns(small_comparison) is None
    assert "Other policies" not in render_page(small_comparison, {}, {})
