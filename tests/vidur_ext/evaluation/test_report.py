"""The report holds every number, needs nothing else, and appears whole."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.metrics import COMPARED_METRICS
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.page import render_page
from vidur_ext.evaluation.report.plots.bars import latency_bars
from vidur_ext.evaluation.report.plots.differences import paired_differences
from vidur_ext.evaluation.report.plots.drawing import draw_plots
from vidur_ext.evaluation.report.plots.looks import bar_look, line_looks
from vidur_ext.evaluation.report.tables import best_heuristic_columns
from vidur_ext.evaluation.report.terminal import print_comparison
from vidur_ext.evaluation.report.writer import ReportPaths, write_report

PNG_NAMES = [
    "differences.png", "tradeoff.png", "e2e.png", "ttft.png", "slo_attainment.png",
    "latency_cdf.png", "prompt_lengths.png", "timelines.png", "replica_shares.png",
]  # fmt: skip


class Cells(HTMLParser):
    """Collects the text of each table row by its row header, and every src and href."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self.references: list[str] = []
        self.tags: list[str] = []
        self.sortable: list[tuple[list[str], list[list[str]]]] = []
        """Labels of the heads and, per row, of the cells of each sortable table."""
        self._cell: str | None = None
        self._row: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._note_labels(tag, dict(attrs))
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self._row = []
        if tag in ("td", "th"):
            self._cell = ""
        elif self._cell is not None:
            self._cell += " "

    def _note_labels(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag == "table":
            self._sorts = attributes.get("class") == "sortable"
            if self._sorts:
                self.sortable.append(([], []))
        label = attributes.get("data-label")
        if tag == "th" and label is not None:
            self.sortable[-1][0].append(label)
        if tag == "th" and attributes.get("scope") == "row" and self._sorts:
            self.sortable[-1][1].append([])
        if tag == "td" and label is not None:
            self.sortable[-1][1][-1].append(label)

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self._row.append(self._cell)
            self._cell = None
        if tag == "tr" and self._row:
            self.rows.setdefault(self._row[0].split(" ")[0], []).extend(self._row[1:])


@pytest.fixture(scope="module")
def report(small_comparison, small_runs, tmp_path_factory) -> ReportPaths:
    folder = tmp_path_factory.mktemp("report") / "new" / "comparison"
    facts = {"Workload": "synthetic <b>24 req/s</b> & more", "Config digest": "abc123"}
    return write_report(small_comparison, small_runs, folder, facts)


@pytest.fixture(scope="module")
def page(report: ReportPaths) -> str:
    return report.html.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cells(page: str) -> Cells:
    parser = Cells()
    parser.feed(page)
    return parser


def test_the_page_shows_every_number_of_every_scheduler(cells: Cells, small_comparison) -> None:
    for one in small_comparison.schedulers:
        row = " ".join(cells.rows[one.name])
        for metric in COMPARED_METRICS:
            assert wording.in_unit(metric, one.pooled[metric]) in row
            assert wording.interval_in_unit(metric, one.intervals[metric]) in row
            for summary in one.per_seed.values():
                if metric in ("e2e_mean_s", "e2e_p99_s", "ttft_p99_s", "slo_attainment"):
                    assert wording.in_unit(metric, summary[metric]) in row
        assert wording.number(one.pooled.requests_per_s) in row
        assert wording.number(one.pooled.output_tokens_per_s) in row
        assert wording.shares(one.pooled.replica_shares) in row
        if one.name != small_comparison.baseline:
            difference = one.versus[small_comparison.baseline]["ttft_p99_s"]
            assert wording.change("ttft_p99_s", difference) in row
            assert wording.change_interval("ttft_p99_s", difference) in row


def test_the_page_needs_nothing_but_itself(page: str, cells: Cells) -> None:
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import", page)
    assert cells.references
    assert all(one.startswith(("data:image/png;base64,", "#")) for one in cells.references)
    assert not set(cells.tags) & {"link", "iframe"}
    assert cells.tags.count("script") == 1, "the page's own, which sorts the tables"


def test_a_head_of_a_sortable_table_stands_for_cells_of_every_row(cells: Cells) -> None:
    assert len(cells.sortable) > 5
    for heads, rows in cells.sortable:
        assert len(set(heads)) == len(heads) > 0
        assert rows
        assert all(sorted(row) == sorted(heads) for row in rows)


def test_what_a_user_names_cannot_become_markup(page: str, cells: Cells) -> None:
    assert "<b>" not in page
    assert "synthetic <b>24 req/s</b> & more" in cells.rows["Workload"]


def test_a_scheduler_whose_name_is_markup_is_shown_as_text(compare, make_run) -> None:
    hostile = "<script>alert('x')</script>"
    runs = [make_run(name) for name in ("ppo", hostile, "least_outstanding")]
    for baseline in ("least_outstanding", hostile):
        comparison = compare(runs, baseline=baseline)
        facts = {"<script>": "</td><script>", "quote": '"><img src=x>'}
        engines = EngineComparison.from_runs(runs, runs, {}, warmup_fraction=0.1)
        parser = Cells()
        parser.feed(render_page(comparison, {}, facts, engines))
        assert "img" not in parser.tags
        assert parser.tags.count("script") == 1, "the page's own, which sorts the tables"
        assert any(name.startswith("<script>alert('x')</script>") for name in parser.rows)
        assert parser.rows["quote"] == ['"><img src=x>']


def test_oracles_and_controls_are_marked_everywhere(page: str, small_comparison) -> None:
    output = terminal(small_comparison)
    for text in (page, output):
        assert "oracle_work †" in text
        assert "always_first ‡" in text
        assert "† knows true output lengths" in text
        assert "‡ deliberately bad control" in text
        assert "ppo †" not in text


def test_nan_is_never_shown(report: ReportPaths, small_comparison, make_run, compare) -> None:
    one_token = {
        "decode_tokens": np.ones(4, dtype=int), "completed_at": np.array([0.5, 2.0, 4.0, 7.0]),
    }  # fmt: skip
    runs = [make_run("least_outstanding", **one_token), make_run("ppo", **one_token)]
    comparison = compare(runs, slo_ttft_s=0.01)
    plots = draw_plots(comparison, runs)
    page, _, _ = render_page(comparison, dict.fromkeys(plots, b""), {}).partition("<script>")
    texts = (
        page,
        terminal(comparison),
        json.dumps(comparison.to_dict(), allow_nan=False),
    )
    for text in texts:
        assert not re.search(r"\b(nan|inf|none)\b", text, re.IGNORECASE)
    assert wording.NOTHING in texts[0]


def test_the_json_is_the_comparison_and_its_facts(report: ReportPaths, small_comparison) -> None:
    document = json.loads(report.json.read_text(encoding="utf-8"))
    facts = document.pop("facts")
    assert facts["Config digest"] == "abc123"
    assert document == small_comparison.to_dict()


def test_plots_are_1200_pixels_wide(report: ReportPaths) -> None:
    assert [path.name for path in report.plots] == PNG_NAMES
    for path in report.plots:
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">I", content[16:20]) == (1200,)


def test_bars_intervals_and_labels_stay_inside_the_plot(compare, make_random_run) -> None:
    slowness = {
        "ppo": (1, 1),
        "least_outstanding": (1, 1),
        "lor": (0.5, 6),
        "always_first": (9, 99),
    }
    runs = [
        make_random_run(name, seed, factor)
        for name, factors in slowness.items()
        for seed, factor in enumerate(factors)
    ]
    figure = latency_bars(compare(runs), "ttft", "Time to first token")
    for axis in figure.axes:
        left, right = axis.get_xlim()
        lines = [segment for lines in axis.collections for segment in lines.get_segments()]
        assert len(lines) == 3, "three whole bars have an interval, the cut one has none"
        assert all(left <= x <= right for segment in lines for x in segment[:, 0])
        assert max(bar.get_width() for bar in axis.patches) < right
        texts = [text.get_text() for text in axis.texts]
        assert sum("cut" in text for text in texts) == 1
        assert all(text.get_position()[0] < right for text in axis.texts)


def test_plots_repeat_to_the_byte_and_leave_no_global_figure(
    report: ReportPaths, small_comparison, small_runs
) -> None:
    again = draw_plots(small_comparison, small_runs)
    assert [path.read_bytes() for path in report.plots] == list(again.values())
    assert plt.get_fignums() == []


def test_the_first_picture_has_a_dot_and_an_interval_for_every_rival(small_comparison) -> None:
    rivals = [one for one in small_comparison.schedulers if not one.learned]
    versus = small_comparison["ppo"].versus
    left, right = paired_differences(small_comparison, small_comparison["ppo"]).axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        one.marked_name for one in rivals
    ]
    for axis, metric in ((left, "e2e_mean_s"), (right, "ttft_p99_s")):
        dots = {line.get_ydata()[0]: line for line in axis.lines if line.get_marker() != "None"}
        spans = {lines.get_segments()[0][0, 1]: lines for lines in axis.collections}
        for row, one in enumerate(rivals):
            found = versus[one.name][metric]
            assert axis.texts[row].get_text() == wording.change(metric, found)
            if one.control:
                assert dots[row].get_marker() == "<", "it leaves the picture, and says to where"
                continue
            assert dots[row].get_xdata()[0] == pytest.approx(100 * (found.ratio - 1))
            bounds = [100 * (bound - 1) for bound in found.ratio_interval.to_list()]
            assert spans[row].get_segments()[0][:, 0] == pytest.approx(bounds)


def test_without_a_policy_no_picture_is_about_one(compare, small_runs) -> None:
    heuristics = [run for run in small_runs if run.scheduler != "ppo"]
    drawn = draw_plots(compare(heuristics), heuristics)
    assert set(PNG_NAMES) - set(drawn) == {
        "differences.png", "prompt_lengths.png", "timelines.png"
    }  # fmt: skip


def test_nothing_but_the_report_is_left_in_the_folder(report: ReportPaths) -> None:
    names = {path.name for path in report.html.parent.iterdir()}
    assert names == {"comparison.html", "comparison.json", *PNG_NAMES}


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, small_comparison, small_runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "comparison.json"
    old.write_text("old", encoding="utf-8")

    def full_disk(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        write_report(small_comparison, small_runs, tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.json"]
    assert old.read_text(encoding="utf-8") == "old"


def test_a_file_in_the_place_of_the_folder_is_a_user_error(
    tmp_path: Path, small_comparison, small_runs
) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot write the report to .*taken"):
        write_report(small_comparison, small_runs, tmp_path / "taken", {})


def test_the_terminal_shows_every_scheduler_within_80_columns(small_comparison) -> None:
    lines = terminal(small_comparison).splitlines()
    assert max(map(len, lines)) <= 80
    for one in small_comparison.schedulers:
        assert sum(line.startswith(one.name) for line in lines) >= 3
        assert wording.in_unit("e2e_p99_s", one.pooled["e2e_p99_s"]) in "\n".join(lines)
    first = [line for line in lines if line.startswith(("oracle", "ppo", "least", "always"))][:4]
    assert [line.split()[0] for line in first] == [one.name for one in small_comparison.schedulers]


def test_the_policy_is_highlighted_on_a_terminal(small_comparison) -> None:
    lines = terminal(small_comparison, color=True).splitlines()
    highlighted = [line for line in lines if "\x1b[1;33m" in line]
    assert len(highlighted) == 4
    assert all("ppo" in line for line in highlighted)


def test_the_headline_ranks_the_policy_among_realistic_rivals(small_comparison) -> None:
    text = wording.headline(small_comparison)
    assert text.startswith("ppo is better than the best heuristic, least_outstanding: mean E2E ")
    ours, theirs = small_comparison["ppo"], small_comparison["least_outstanding"]
    for metric in ("e2e_mean_s", "ttft_p99_s"):
        change = wording.change(metric, ours.versus["least_outstanding"][metric])
        figures = [wording.number(one.pooled[metric]) for one in (ours, theirs)]
        assert f"{figures[0]} s against {figures[1]} s, {change} [" in text
    assert "lower on 2 of 2 workloads" in text
    assert text.endswith("Of 1 realistic rival it is better than 1.")


def test_without_a_policy_the_best_realistic_scheduler_is_named(compare, small_runs) -> None:
    heuristics = [run for run in small_runs if run.scheduler != "ppo"]
    comparison = compare(heuristics)
    assert wording.headline(comparison).startswith("least_outstanding has the lowest mean E2E")
    page = render_page(comparison, {}, {})
    assert "against each scheduler" not in page


def test_policies_are_shown_against_the_best_heuristic(cells: Cells, small_comparison) -> None:
    ppo = small_comparison["ppo"]
    difference = ppo.versus["least_outstanding"]["e2e_mean_s"]
    interval = wording.ratio_interval(difference)
    tail = wording.ratio(ppo.against_best.ttft_p99)
    shown = terminal(small_comparison)
    table = shown[shown.index("Against the best heuristic, least_outstanding") :]
    [row] = [line for line in table.splitlines()[2:] if line.startswith("ppo")][:1]
    expected = f"ppo {wording.ratio(ppo.against_best.e2e)} {interval} better {tail} 2 of 2"
    assert " ".join(row.split()) == expected
    for text in (interval, tail, "2 of 2"):
        assert text in " ".join(cells.rows["ppo"])


@pytest.fixture
def planned(compare, small_runs, make_random_run, monkeypatch) -> Comparison:
    """Return the comparison with two planners in it, one of which knows output lengths."""
    monkeypatch.setattr("vidur_ext.evaluation.comparison.PLANNERS", ("clairvoyant", "lookahead"))
    clairvoyant = [
        dataclasses.replace(make_random_run("clairvoyant", seed, 0.6), uses_output_lengths=True)
        for seed in (0, 1)
    ]
    lookahead = [make_random_run("lookahead", seed, 0.75) for seed in (0, 1)]
    return compare([*small_runs, *clairvoyant, *lookahead])


def test_planners_are_marked_and_explained(planned) -> None:
    note = (
        "§ plans by simulating every choice: what the policy is taught by, and the rival to beat."
    )
    page = render_page(planned, {}, {})
    for text in (re.sub(r"<[^>]+>", "", page), " ".join(terminal(planned).split())):
        assert note in text
        assert "lookahead §" in text
        assert "clairvoyant †§" in text
        assert "always_first ‡" in text
    assert max(map(len, terminal(planned).splitlines())) <= 80


def test_planners_are_shown_but_not_ranked(planned) -> None:
    assert "Of 1 realistic rival " in wording.headline(planned)
    assert "lookahead" not in wording.headline(planned)
    assert set(best_heuristic_columns(planned).cells) == {"ppo", "lookahead", "clairvoyant"}


def test_planners_look_like_nothing_else_in_plots(planned) -> None:
    looks = [bar_look(one, planned) for one in planned.schedulers]
    assert len({(look.color, look.hatch) for look in looks}) == len(looks)
    assert {look.meaning for look in looks} >= {"planner §", "planner †§", "oracle †"}
    lines = line_looks(planned).values()
    assert len({(line.color, line.dashes) for line in lines}) == len(planned.schedulers)


def test_a_toothless_control_is_a_warning(compare, make_run) -> None:
    comparison = compare([make_run("least_outstanding"), make_run("always_first")])
    warning = "the control always_first is not clearly worse than least_outstanding"
    assert warning in render_page(comparison, {}, {})
    assert warning in " ".join(terminal(comparison).split())


def terminal(comparison: Comparison, color: bool = False) -> str:
    """Return what a terminal of 80 columns shows."""
    stream = io.StringIO()
    system = "standard" if color else None
    print_comparison(
        comparison, Console(file=stream, width=80, force_terminal=color, color_system=system)
    )
    return stream.getvalue()
