"""Over load, everybody serves the same requests, at rates that are shares of saturation."""

from __future__ import annotations

import csv
import io
import json
from html import unescape

import numpy as np
import pytest
from rich.console import Console

from vidur_ext.config.loading import load_config
from vidur_ext.evaluation.load_sweep import AtLoad, LoadSweep, sweep_loads
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.report.plots.drawing import LOADS
from vidur_ext.evaluation.report.plots.loads import latency_over_load
from vidur_ext.evaluation.report.terminal import print_comparison
from vidur_ext.evaluation.report.writer import write_report
from vidur_ext.evaluation.runner import held_out_workloads, runs_on_engine
from vidur_ext.evaluation.saturation import saturation_of
from vidur_ext.vidur.engine_inputs import engine_cluster

SCHEDULERS = ["round_robin", "least_outstanding", "always_first", "oracle_work", "lookahead"]


@pytest.fixture(scope="module")
def config():
    changes = [
        f"evaluation.schedulers={json.dumps(SCHEDULERS)}", "evaluation.num_seeds=2",
        "evaluation.requests=128", "evaluation.bootstrap_samples=20",
        "parallel_training.num_workers=1",
    ]  # fmt: skip
    return load_config(None, changes)


@pytest.fixture(scope="module")
def own_load(config) -> float:
    [load] = saturation_of(config).loads
    return load


@pytest.fixture(scope="module")
def sweep(config, own_load) -> LoadSweep:
    """Return a sweep of heuristics alone; one of its loads is that of the config."""
    told: list[tuple[str, int, int]] = []
    loads = [2 * own_load, own_load / 2, own_load]
    found = sweep_loads(config, {}, loads, lambda *one: told.append(one))
    assert [done for _, done, _ in told] == [1, 2, 3]
    assert {(name, total) for name, _, total in told} == {
        ("lookahead", 3), ("round_robin", 3), ("least_outstanding", 3)
    }  # fmt: skip
    return found


def test_rates_are_shares_of_saturation(config, sweep, own_load) -> None:
    assert [point.load for point in sweep.points] == [own_load / 2, own_load, 2 * own_load]
    assert [point.rate for point in sweep.points] == pytest.approx([12.25, 24.5, 49.0])
    assert sweep.sustained == saturation_of(config).sustained


def test_at_the_load_of_the_config_the_runs_are_those_of_the_comparison(config, sweep) -> None:
    at_own = sweep.points[1].comparison
    for name in (at_own.best_heuristic, "lookahead"):
        runs = runs_on_engine(
            config, engine_cluster(config), name, None, held_out_workloads(config, range(2))
        )
        counted = [(run.completed_at - run.arrived_at)[12:] for run in runs]  # 10 % of 128
        expected = np.concatenate(counted).mean()
        assert at_own[name].pooled["e2e_mean_s"] == pytest.approx(expected, rel=1e-6)


def test_more_load_means_more_latency_for_the_best_heuristic_and_look_ahead(sweep) -> None:
    for point in sweep.points:
        assert point.comparison.best_heuristic in ("round_robin", "least_outstanding")
        assert {one.name for one in point.comparison.schedulers} == {
            point.comparison.best_heuristic, "lookahead"
        }  # fmt: skip
    means = [point.comparison["lookahead"].pooled["e2e_mean_s"] for point in sweep.points]
    assert means == sorted(means)
    assert means[-1] > 1.1 * means[0]


@pytest.fixture(scope="module")
def drawn(compare, make_random_run) -> LoadSweep:
    """Return a sweep of plain numbers, in which another heuristic is the best at each load."""
    points = []
    for load, best in ((0.5, "lor"), (1.0, "least_tokens")):
        slowness = {"best heuristic": 0.8, "<b>$other": 0.9, best: 1.0, "lookahead": 0.7}
        runs = [
            make_random_run(name, seed, load * slow)
            for name, slow in slowness.items()
            for seed in (0, 1)
        ]
        comparison = compare(runs, baseline=best, under_test="best heuristic")
        points.append(AtLoad(load, 20 * load, comparison))
    return LoadSweep(20.0, tuple(points))


def test_the_picture_has_a_line_for_each_and_changes_against_the_best_of_each_load(drawn) -> None:
    e2e, _, e2e_change, _ = latency_over_load(drawn).axes
    assert [line.get_label() for line in e2e.lines] == [
        "best heuristic", "<b>$other", "best heuristic", "lookahead"
    ]  # fmt: skip
    policy, _, best, _ = e2e.lines
    for line, names in (
        (policy, ("best heuristic",) * 2),
        (best, ("lor", "least_tokens")),
    ):
        assert list(line.get_xdata()) == [50, 100]
        assert list(line.get_ydata()) == [
            point.comparison[name].pooled["e2e_mean_s"]
            for point, name in zip(drawn.points, names, strict=True)
        ]
    changes = [container.lines[0].get_ydata() for container in e2e_change.containers]
    expected = [
        100 * (point.comparison["best heuristic"].against_best.e2e - 1) for point in drawn.points
    ]
    assert list(changes[0]) == pytest.approx(expected)
    assert all(change < 0 for change in changes[0])


def test_page_json_csv_and_terminal_hold_every_figure(
    drawn, small_comparison, small_runs, tmp_path
) -> None:
    paths = write_report(small_comparison, small_runs, tmp_path, {}, sweep=drawn)
    assert LOADS in [path.name for path in paths.plots]
    page = paths.html.read_text(encoding="utf-8")
    assert "<b>$other" not in page
    section = unescape(page[page.index("<h2 id=loads>") : page.index("<h2 id=workloads>")])
    stream = io.StringIO()
    print_comparison(small_comparison, Console(file=stream, width=80), sweep=drawn)
    assert max(map(len, stream.getvalue().splitlines())) <= 80
    with (tmp_path / "loads.csv").open(encoding="utf-8", newline="") as file:
        rows = {(float(row["load"]), row["name"]): row for row in csv.DictReader(file)}
    told = json.loads(paths.json.read_text(encoding="utf-8"))["load_sweep"]
    assert told == drawn.to_dict()
    assert len(rows) == 8
    for point in drawn.points:
        for one in point.comparison.schedulers:
            row = rows[point.load, one.name]
            assert float(row["ttft_p99_s"]) == one.pooled["ttft_p99_s"]
            assert float(row["e2e_vs_best_heuristic"]) == one.against_best.e2e
            for text in (section, stream.getvalue()):
                assert one.name in text
                assert wording.in_unit("e2e_mean_s", one.pooled["e2e_mean_s"]) in text
                assert f"{100 * point.load:g} %" in text


def test_without_loads_the_report_has_no_such_part(small_comparison, small_runs, tmp_path) -> None:
    paths = write_report(small_comparison, small_runs, tmp_path, {})
    assert "Over load" not in paths.html.read_text(encoding="utf-8")
    assert not (tmp_path / "loads.csv").exists()
