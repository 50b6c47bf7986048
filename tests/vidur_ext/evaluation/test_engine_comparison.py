"""The engines side by side: what is alike, what rounding explains, and what nothing explains."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.engines import NEAR_TIE, EngineComparison
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.page import render_page
from vidur_ext.evaluation.report.terminal import print_comparison
from vidur_ext.evaluation.report.wording import engine_line, engine_notes, relative_difference
from vidur_ext.evaluation.report.writer import write_report

REQUEST = 40


@pytest.fixture
def again(small_runs):
    """Return the compiled engine's runs: Vidur's, ten times as fast, with one of them changed."""

    def make(scheduler: str = "", seed: int = 1, change=lambda run: run):
        return [
            dataclasses.replace(
                change(run) if (run.scheduler, run.seed) == (scheduler, seed) else run,
                decisions_per_second=10 * run.decisions_per_second,
            )
            for run in small_runs
        ]

    return make


def on_engines(vidur, compiled, gaps=None) -> EngineComparison:
    return EngineComparison.from_runs(vidur, compiled, gaps or {}, warmup_fraction=0.1)


def delayed(run, request: int, factor: float):
    completed = run.completed_at.copy()
    completed[request:] *= factor
    return dataclasses.replace(run, completed_at=completed)


def test_equal_runs_agree_and_show_the_figures_of_the_comparison(
    small_runs, small_comparison, again
):
    engines = on_engines(small_runs, again())
    assert len(engines.schedulers) == 4
    for one in engines.schedulers:
        pooled = small_comparison[one.name].pooled
        assert one.agrees
        assert (one.routed_elsewhere, one.completion_difference) == (0, 0.0)
        assert one.requests == 240
        for side in (one.vidur, one.compiled):
            assert side.e2e_mean_s == pooled["e2e_mean_s"]
            assert side.ttft_p99_s == pooled["ttft_p99_s"]
        assert one.vidur.decisions_per_second == pytest.approx(500)
        assert one.compiled.decisions_per_second == pytest.approx(5000)


def test_other_times_under_the_same_routing_are_a_disagreement(small_runs, again):
    engines = on_engines(small_runs, again("ppo", 1, lambda run: delayed(run, REQUEST, 1.01)))
    one = engines["ppo"]
    assert not one.agrees
    assert one.completion_difference == pytest.approx(1 - 1 / 1.01)
    assert one.earlier_difference == one.completion_difference
    assert one.compiled.e2e_mean_s > one.vidur.e2e_mean_s
    assert engines["oracle_work"].agrees


def test_rounding_of_a_time_is_no_disagreement(small_runs, again):
    engines = on_engines(small_runs, again("ppo", 1, lambda run: delayed(run, 0, 1 + 1e-12)))
    assert engines["ppo"].agrees
    assert 0 < engines["ppo"].completion_difference < 1e-9


def elsewhere(make_changed_run, run):
    """Route a request elsewhere, and let times differ from its arrival on."""
    changed = make_changed_run(run, REQUEST)
    later = run.completed_at > run.arrived_at[REQUEST]
    return dataclasses.replace(changed, completed_at=np.where(later, 1.5, 1) * run.completed_at)


@pytest.mark.parametrize(
    ("gaps", "agrees"),
    [({("ppo", 1): NEAR_TIE / 2}, True), ({("ppo", 1): NEAR_TIE * 2}, False), ({}, False)],
)
def test_a_near_tie_explains_another_routing_and_nothing_else_does(
    small_runs, again, make_changed_run, gaps, agrees
):
    compiled = again("ppo", 1, lambda run: elsewhere(make_changed_run, run))
    one = on_engines(small_runs, compiled, gaps)["ppo"]
    assert one.agrees == agrees
    assert one.routed_elsewhere == 1
    assert one.completion_difference > 0.3
    assert one.earlier_difference == 0.0


def test_a_near_tie_explains_no_difference_before_it(small_runs, again, make_changed_run):
    def change(run):
        return delayed(elsewhere(make_changed_run, run), 0, 1.001)

    one = on_engines(small_runs, again("ppo", 1, change), {("ppo", 1): 0.0})["ppo"]
    assert one.earlier_difference == pytest.approx(0.001, rel=0.01)
    assert not one.agrees


def test_other_requests_are_refused(small_runs, again):
    def change(run):
        longer = dataclasses.replace(run.table, prefill_tokens=run.table.prefill_tokens + 1)
        return dataclasses.replace(run, table=longer)

    compiled = [change(run) for run in again()]
    with pytest.raises(UserError, match="did not meet the same requests on both engines on seed"):
        on_engines(small_runs, compiled)


def test_a_run_that_was_not_made_again_is_named(small_runs, again):
    with pytest.raises(UserError, match=r"missing: \(ppo, seed 0\), \(ppo, seed 1\)"):
        on_engines(small_runs, [run for run in again() if run.scheduler != "ppo"])


def shown(comparison, engines) -> tuple[str, str]:
    """Return the page's text, and that of a terminal of 80 columns."""
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=80), engines)
    assert max(map(len, stream.getvalue().splitlines())) <= 80
    page = render_page(comparison, {}, {}, engines)
    return re.sub(r"<[^>]+>", " ", page), " ".join(stream.getvalue().split())


def test_the_report_shows_both_engines(small_runs, small_comparison, again, tmp_path):
    engines = on_engines(small_runs, again())
    line = (
        "Vidur repeated the first 2 held-out workloads: completion times of 4 of 4 schedulers as "
        "on the compiled engine (largest relative difference 0); 5,000 simulated requests/s on the "
        "engine, 500.0 on Vidur, over all schedulers."
    )
    assert engine_line(engines) == line
    for text in shown(small_comparison, engines):
        assert line in text
        assert "disagree" not in text
    paths = write_report(small_comparison, small_runs, tmp_path, {}, engines)
    document = json.loads(paths.json.read_text(encoding="utf-8"))
    assert document["engines"] == json.loads(json.dumps(engines.to_dict(), allow_nan=False))
    assert document["engines"]["workloads"] == [0, 1]
    assert {key for one in document["engines"]["schedulers"] for key in one} == {
        "name", "vidur", "compiled", "requests", "routed_elsewhere", "preference_gap",
        "completion_difference", "earlier_difference", "agrees",
    }  # fmt: skip


def test_the_page_shows_every_scheduler_on_both_engines(
    small_runs, small_comparison, again, make_changed_run
):
    compiled = again("ppo", 1, lambda run: elsewhere(make_changed_run, run))
    engines = on_engines(small_runs, compiled, {("ppo", 1): 0.0})
    page = render_page(small_comparison, {}, {}, engines)
    table = page[page.index("Vidur and the compiled engine") : page.index("<h2 id=run>")]
    for one in engines.schedulers:
        [row] = [row for row in table.split("<tr") if f"<th scope=row>{one.name}" in row]
        assert re.findall("<td[^>]*>(.*?)</td>", row) == [
            *(
                wording.number(getattr(side, name))
                for name in ("e2e_mean_s", "ttft_p99_s", "decisions_per_second")
                for side in (one.vidur, one.compiled)
            ),
            relative_difference(one.completion_difference),
            f"{one.routed_elsewhere} of 240",
        ]
    assert relative_difference(engines["ppo"].completion_difference) == "3.3e-01"
    assert relative_difference(engines["oracle_work"].completion_difference) == "0"


def test_the_report_says_when_a_near_tie_was_decided_differently(
    small_runs, small_comparison, again, make_changed_run
):
    compiled = again("ppo", 1, lambda run: elsewhere(make_changed_run, run))
    engines = on_engines(small_runs, compiled, {("ppo", 1): 1e-7})
    for text in shown(small_comparison, engines):
        assert "completion times of 3 of 4 schedulers as on the compiled engine" in text
        assert "ppo: 1 of 240 requests routed elsewhere, mean E2E" in text
        assert "goes back to near-ties" in text
        assert "disagree" not in text


def test_the_report_warns_of_what_nothing_explains(small_runs, small_comparison, again):
    engines = on_engines(small_runs, again("ppo", 0, lambda run: delayed(run, 5, 1.25)))
    [note] = engine_notes(engines)
    assert note.startswith("Warning: the engines disagree on ppo, and no rounding explains it")
    assert "differ by up to 2.0e-01" in note
    for text in shown(small_comparison, engines):
        assert note in text


def test_where_vidur_judges_nothing_is_said_of_another_engine(small_runs, compare, tmp_path):
    comparison = compare(small_runs, engine="vidur")
    paths = write_report(comparison, small_runs, tmp_path, {})
    assert "engines" not in json.loads(paths.json.read_text(encoding="utf-8"))
    for text in shown(comparison, None):
        assert "2 held-out workloads, simulated by Vidur, the same" in text
        assert "Vidur repeated" not in text
        assert "checked" not in text


def test_a_compiled_comparison_that_nothing_checked_says_so(small_comparison):
    for text in shown(small_comparison, None):
        assert "2 held-out workloads, simulated by the compiled engine, the same" in text
        assert "Vidur has not checked these runs: evaluation.vidur_workloads is 0." in text


def test_vidur_may_have_repeated_fewer_workloads(small_runs, again):
    first = [run for run in small_runs if run.seed == 0]
    engines = on_engines(first, again("ppo", 1, lambda run: delayed(run, 5, 1.25)))
    assert engines.seeds == (0,)
    assert [one.requests for one in engines.schedulers] == [120] * 4
    assert all(one.agrees for one in engines.schedulers), "the other workload is not looked at"
    assert engine_line(engines).startswith("Vidur repeated the first held-out workload: ")
