"""The report names the worst seed everywhere, leaves none out, and is one file."""

from __future__ import annotations

import json
import re

import pytest

from vidur_ext.evaluation.saturation import Saturation
from vidur_ext.suite.folder import SuiteFolder
from vidur_ext.suite.report.markdown import render_markdown
from vidur_ext.suite.report.page import render_page
from vidur_ext.suite.report.plot import draw_plot
from vidur_ext.suite.report.tables import headline, introduction, loads
from vidur_ext.suite.report.writer import write_results
from vidur_ext.suite.results import Ratios, ScenarioResult, SchedulerResult, SuiteResult
from vidur_ext.suite.tuning import Tuned

E2E = {
    "ppo": (0.97, 0.95, 1.01),
    "behaviour_cloning": (0.98, 0.96, 0.97),
    "least_tokens": (1.0, 1.0, 1.0),
    "oracle_work": (0.9, 0.9, 0.9),
}
KINDS = {"ppo": "policy", "behaviour_cloning": "policy", "oracle_work": "oracle"}


def scenario(
    name: str, *, hit_rate: tuple[float, ...] = (0.0, 0.0, 0.0), **changes: object
) -> ScenarioResult:
    schedulers = tuple(
        SchedulerResult(
            scheduler,
            KINDS.get(scheduler, "heuristic"),
            scheduler == "oracle_work",
            Ratios(ratios),
            Ratios((1.0, 1.1, 1.04)),
            hit_rate,
        )
        for scheduler, ratios in E2E.items()
    )
    facts = {"Cluster": "<four> A100", "Workload": "22 requests/s", "Version of torch": "2.13"}
    fields = {
        "best_heuristics": ("least_tokens", "vllm_dp", "least_tokens"),
        "saturation": Saturation(20.0, (12.0, 22.0)),
        **changes,
    }
    return ScenarioResult(name, facts, schedulers=schedulers, **fields)


@pytest.fixture
def result() -> SuiteResult:
    return SuiteResult(3, (scenario("busy"), scenario("calm")), {"trace": "its file is gone"})


def rows(markdown: str, name: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|") and name in line]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def test_the_first_table_has_medians_and_the_worst_seed_of_policies(result) -> None:
    [busy, _, _, _] = rows(render_markdown(result, "plot.png"), "ppo")
    assert busy == [
        "busy",
        "60 → 110 %",
        "least_tokens (2), vllm_dp (1)",
        "ppo",
        "−3.0 %",
        "+1.0 % (seed 2)",
        "x1.04",
        "x1.10 (seed 1)",
    ]


def test_every_scheduler_is_shown_with_all_its_seeds(result) -> None:
    page = render_markdown(result, "plot.png").partition("## Every scheduler")[2]
    for name in E2E:
        assert len(rows(page, name)) == 2, "once per scenario"
    assert rows(page, "ppo")[0][-1] == "−3.0, −5.0, +1.0"
    assert rows(page, "oracle_work")[0][:2] == ["oracle_work", "oracle †"]


def test_what_caches_found_is_shown_where_they_found_anything() -> None:
    finding = scenario("busy", hit_rate=(0.25, 0.75, 0.5))
    page = render_markdown(SuiteResult(3, (finding, scenario("calm")), {}), "plot.png")
    busy, calm = rows(page.partition("## Every scheduler")[2], "ppo")
    assert (busy[-2], len(busy)) == ("50.0 %", len(calm) + 1)


def test_what_rivals_were_told_after_tuning_stands_below_their_scenario() -> None:
    tuned = Tuned({"match_share": 0.25, "imbalance_requests": 12.3456}, 4.5, untuned_e2e_s=5.0)
    result = SuiteResult(3, (scenario("busy", tuning={"cache_aware": tuned}), scenario("calm")), {})
    page = render_markdown(result, "plot.png")
    assert rows(page, "cache_aware") == [
        ["cache_aware", "match_share 0.25, imbalance_requests 12.3", "−10.0 %"]
    ]
    assert "the lowest mean E2E on 16 workloads" in page
    assert "match_share 0.25" in render_page(result, b"")
    assert result.to_dict()["about"]["busy"]["tuning"]["cache_aware"]["e2e_s"] == 4.5


def test_the_headline_counts_medians_and_names_the_worst_seed(result) -> None:
    assert headline(result) == (
        "ppo: median mean E2E below the best heuristic on 2 of 2 scenarios; the worst seed of all "
        "is seed 2 of busy, +1.0 %."
    )


def test_what_was_left_out_and_what_marks_mean_is_said(result) -> None:
    for page in (render_markdown(result, "plot.png"), render_page(result, b"")):
        assert "Scenario trace was left out: its file is gone." in page
        assert "† knows true output lengths" in page


def test_one_seed_is_called_so() -> None:
    assert "with seed 0 alone" in introduction(SuiteResult(1, (), {}))[0]


def test_a_load_that_is_not_known_is_a_dash() -> None:
    assert loads(scenario("busy", saturation=None)) == "–"


def test_the_page_needs_no_other_file_and_takes_no_markup_from_names(result) -> None:
    page = render_page(result, draw_plot(result))
    assert re.findall(r'(?:src|href)="([^"]{0,22})', page) == ["data:image/png;base64,"]
    assert "&lt;four&gt; A100" in page
    assert "2.13" in page
    assert page.count("<tr class=learned>") == 4, "in the first table and those of the scenarios"


def test_equal_results_give_an_equal_plot(result) -> None:
    first = draw_plot(result)
    assert first.startswith(b"\x89PNG")
    assert draw_plot(result) == first
    assert draw_plot(SuiteResult(3, result.scenarios[:1], {})) != first


def test_files_are_written_to_the_folder_and_where_they_are_wanted(result, tmp_path) -> None:
    folder = SuiteFolder(tmp_path / "suite")
    wanted = {"json": tmp_path / "kept" / "suite.json", "md": tmp_path / "docs" / "results.md"}
    write_results(result, folder, wanted["json"], wanted["md"])
    assert {path.name for path in folder.path.iterdir()} == {
        "results.json", "results.md", "results.png", "results.html",
    }  # fmt: skip
    assert json.loads(wanted["json"].read_text()) == result.to_dict()
    assert "](results.png)" in wanted["md"].read_text()
    assert (tmp_path / "docs" / "results.png").read_bytes() == draw_plot(result)
