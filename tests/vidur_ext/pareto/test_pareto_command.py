"""``vidur-ppo pareto`` measures what it says, on validation workloads, and says which L to take."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ppo_scheduler.errors import UserError
from vidur_ext.cli import app
from vidur_ext.config.loading import dump_config, load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.runner import runs_on_engine
from vidur_ext.routing.features import observation_schema
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.warmstart.cost_labels import CostLabels
from vidur_ext.warmstart.cost_learning import Lessons, learn_from_costs
from vidur_ext.workload.run_workloads import validation_table

WEIGHTS = (30.0, 0.0)
HEURISTICS = ("min_predicted_latency", "round_robin")
SMALL = ("--workloads", "2", "--requests", "64")
SETTINGS: dict[str, dict[str, Any]] = {
    "actor_critic_architecture": {"hidden_size": 8},
    "warmstart": {
        "load_levels": [1.0],
        "rounds": 2,
        "labels_per_round": 64,
        "steps_per_round": 5,
    },
    "parallel_training": {"num_envs": 2, "num_workers": 1},
    # What may not be chosen is there as well: an oracle, a control and a planner.
    "evaluation": {
        "schedulers": [*HEURISTICS, "oracle_work", "always_first", "lookahead"],
        "baseline": "round_robin",
    },
}


def pareto(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["pareto", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@dataclass(frozen=True)
class Report:
    folder: Path
    printed: str
    config: TrainingConfig

    @property
    def document(self) -> dict[str, Any]:
        text = (self.folder / "pareto.json").read_text(encoding="utf-8")
        document: dict[str, Any] = json.loads(text)
        return document

    def figures(self, router: str, weight: float) -> tuple[float, float]:
        (one,) = [p for p in self.document[router]["points"] if p["ttft_weight"] == weight]
        return one["e2e_mean_s"], one["ttft_p99_s"]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "config.json"
    file.write_text(json.dumps(SETTINGS), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def report(config_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    printed = pareto(
        "--config", config_file, "--weights", ",".join(f"{weight:g}" for weight in WEIGHTS),
        *SMALL, "--output-dir", folder, "--json", folder / "copy.json",
    )  # fmt: skip
    config = load_config(
        config_file,
        ["checkpointing.validation_seeds=2", "checkpointing.validation_requests=64"],
    )
    return Report(folder, printed, config)


def with_weight(config: TrainingConfig, weight: float) -> TrainingConfig:
    tree = json.loads(dump_config(config))
    tree["lookahead"]["ttft_weight"] = weight
    return TrainingConfig.model_validate_json(json.dumps(tree))


def routed_here(config: TrainingConfig, name: str, policy=None) -> tuple[float, float]:
    """Return mean E2E and p99 TTFT of validation workloads, the first tenth not counted."""
    tables = {seed: validation_table(config, seed) for seed in range(2)}
    runs = runs_on_engine(config, engine_cluster(config), name, policy, tables)
    counted = slice(6, None)  # of 64
    e2e = [(run.completed_at - run.table.arrived_at)[counted] for run in runs]
    ttft = [(run.prefill_completed_at - run.table.arrived_at)[counted] for run in runs]
    return float(np.mean(e2e)), float(np.quantile(np.concatenate(ttft), 0.99))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_planner_is_measured_at_every_weight(report, weight):
    here = routed_here(with_weight(report.config, weight), "lookahead")
    assert report.figures("lookahead", weight) == pytest.approx(here, rel=1e-12)


def test_a_policy_is_taught_with_its_weight_and_measured(report):
    for weight in WEIGHTS:
        config = with_weight(report.config, weight)
        first = CostLabels(config).collect(0, None)
        schema = observation_schema(config.observation)
        taught = learn_from_costs([Lessons(config, first)], schema, lambda report: None)
        here = routed_here(config, "policy", taught.policy)
        assert report.figures("policy", weight) == pytest.approx(here, rel=1e-12)
    assert report.figures("policy", 0.0) != report.figures("policy", 30.0)


def test_ratios_are_to_the_best_heuristic_that_could_be_at_work(report):
    measured = {name: routed_here(report.config, name) for name in HEURISTICS}
    name = min(HEURISTICS, key=lambda name: measured[name][0])
    best = report.document["best_heuristic"]
    assert best["name"] == name
    assert (best["e2e_mean_s"], best["ttft_p99_s"]) == pytest.approx(measured[name], rel=1e-12)
    point = report.document["lookahead"]["points"][0]
    assert point["e2e_vs_best_heuristic"] == point["e2e_mean_s"] / best["e2e_mean_s"]
    assert point["ttft_p99_vs_best_heuristic"] == point["ttft_p99_s"] / best["ttft_p99_s"]


def test_points_stand_by_rising_weight(report):
    for router in ("lookahead", "policy"):
        points = report.document[router]["points"]
        assert [point["ttft_weight"] for point in points] == [0.0, 30.0]


def test_the_page_needs_no_other_file(report):
    page = (report.folder / "pareto.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_everything_is_printed_and_the_json_is_there_twice(report):
    for line in ("lookahead, L = 30: ", "policy, L = 0: ", "round_robin: ", "policy: "):
        assert re.search(rf"^{line}", report.printed, re.MULTILINE), line
    assert report.printed.splitlines()[-1] == str(report.folder / "pareto.html")
    copy = json.loads((report.folder / "copy.json").read_text(encoding="utf-8"))
    assert copy == report.document


def test_without_policies_the_planner_is_alone(config_file, tmp_path):
    pareto(
        "--config", config_file, "--weights", "5", "--no-policies", "--quiet", *SMALL,
        "--set", 'warmstart.method="imitation"', "--set", f"training.output_root={tmp_path}",
    )  # fmt: skip
    (file,) = (tmp_path / "pareto").glob("run_*/pareto.json")
    document = json.loads(file.read_text(encoding="utf-8"))
    assert "policy" not in document
    assert [point["ttft_weight"] for point in document["lookahead"]["points"]] == [5.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "3,-1"), "lookahead.ttft_weight"),
        (("--weights", "3,many"), "lookahead.ttft_weight"),
        (("--set", "warmstart.method=imitation"), "or say --no-policies"),
        (
            (
                "--set", "simulation.engine=vidur", "--set", "parallel_training.num_envs=1",
                "--set", "ppo_config.advantage=gae", "--set", "warmstart.method=imitation",
            ),
            'set simulation.engine to "compiled"',
        ),
        (
            (
                "--set", 'evaluation.schedulers=["always_first","lookahead"]',
                "--set", "evaluation.baseline=always_first",
            ),
            "add one, e.g. min_predicted_latency",
        ),
        (("--json", "/"), "/: the report cannot be written there (Is a directory)"),
        (("--output-dir", "/dev/null/report"), "/dev/null/report/pareto.html: the report cannot"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    config_file, tmp_path, arguments, message
):
    with pytest.raises(UserError, match=re.escape(message)):
        pareto("--config", config_file, "--output-dir", tmp_path / "report", *arguments)
    assert not (tmp_path / "report").exists()
