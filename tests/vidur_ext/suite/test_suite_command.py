"""``vidur-ppo suite`` from its command line to its report; the cells are trained beforehand."""

from __future__ import annotations

import json
import sys

import pytest

from ppo_scheduler.files import write_file
from vidur_ext import cli
from vidur_ext.config.loading import dump_config
from vidur_ext.suite.cell import run_cell
from vidur_ext.suite.folder import SuiteFolder, open_suite
from vidur_ext.suite.plan import plan_suite


@pytest.fixture
def suite(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; return (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vidur-ppo", "suite", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def test_what_is_trained_is_reported_and_not_trained_again(suite, scenario, tmp_path) -> None:
    file = scenario("tiny")
    [cell] = plan_suite({"tiny": file}, 1, asked_for=True).cells(tmp_path / "outputs" / "suite", {})
    cell.folder.path.mkdir(parents=True)
    write_file(cell.folder.config, dump_config(cell.config).encode())
    run_cell(cell.folder)
    trained = cell.folder.policy.stat().st_mtime_ns
    status, out, _ = suite(
        "--scenarios", "tiny.json", "--seeds", "1", "--json", "kept.json", "--markdown", "page.md"
    )  # fmt: skip
    assert status == 0
    assert "ppo: median mean E2E below the best heuristic on " in out
    assert cell.folder.policy.stat().st_mtime_ns == trained
    document = json.loads((tmp_path / "kept.json").read_text())
    compared = json.loads(cell.folder.comparison_json.read_text())
    figures = {one["name"]: one["pooled"] for one in compared["schedulers"]}
    best = figures["least_outstanding"]
    assert document["scenarios"]["tiny"].keys() == figures.keys()
    for name, pooled in figures.items():
        assert document["scenarios"]["tiny"][name] == {
            "e2e_vs_best_heuristic": [pooled["e2e_mean_s"] / best["e2e_mean_s"]],
            "ttft_p99_vs_best_heuristic": [pooled["ttft_p99_s"] / best["ttft_p99_s"]],
            "hit_rate": [0.0],
        }
    assert "| **tiny** |" in (tmp_path / "page.md").read_text()
    assert (tmp_path / "outputs" / "suite" / "results.html").exists()


def test_another_suite_in_the_folder_is_refused(suite, scenario, tmp_path) -> None:
    plan = plan_suite({"tiny": scenario("tiny")}, 1, asked_for=True)
    open_suite(SuiteFolder(tmp_path / "outputs" / "suite"), plan).release()
    status, _, err = suite("--scenarios", "tiny.json", "--seeds", "1", "--set", "workload.qps=9")
    assert status == 2
    assert "tiny: workload.qps: 24.5 there, 9.0 now" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--scenarios", "bursty,nowhere"], "--scenarios nowhere: there is no such scenario or"),
        (["--scenarios", "nowhere"], "there are default, agent, api_slow_signals, "),
        (["--scenarios", "bursty,bursty"], "bursty stands there twice"),
        (["--scenarios", "trace"], "scenario trace: its trace ./traces/AzureLLM"),
        (["--set", "training.seed=3"], "the suite sets training.seed itself"),
        (["--scenarios", "bursty", "--trace", "x.csv"], "none of bursty replays a trace"),
        (["--json", "/"], "/: the results cannot be written there (Is a directory)"),
        (["--markdown", "/dev/null/x.md"], "/dev/null/x.md: the results cannot be written there"),
        (
            ["--scenarios", "bursty", "--set", "monitoring.wandb=online"],
            "W&B: http://127.0.0.1:9 cannot be reached",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(
    suite, tmp_path, monkeypatch, arguments, text
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    status, _, err = suite(*arguments)
    assert (status, text in err) == (2, True), err
    assert list(tmp_path.iterdir()) == []
