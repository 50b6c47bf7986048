"""``vidur-ppo compare`` judges a run's policies, or one file, by a report with numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy, save_policy
from vidur_ext.cli import app
from vidur_ext.commands.compare import named_policies
from vidur_ext.config.loading import dump_config
from vidur_ext.routing.features import observation_schema
from vidur_ext.run_folder import RunFolder

SMALL = {"schedulers": ["least_outstanding", "round_robin"], "num_seeds": 1, "requests": 32}


@pytest.fixture
def run(make_config, tmp_path):
    """A run folder with a policy that has learned nothing."""
    config = make_config(evaluation=SMALL)
    folder = RunFolder.at(tmp_path / "outputs" / "some_runs" / "run_1")
    folder.config.write_text(dump_config(config), encoding="utf-8")
    folder.log.touch()
    schema = observation_schema(config.observation)
    policy = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    policy.initialize(0)
    rng = np.random.default_rng(0)
    shapes = (8, 3, len(schema.replica)), (8, len(schema.context)), (8, len(schema.telemetry))
    policy.collect(Observation(*(rng.normal(size=shape) for shape in shapes)))
    save_policy(policy, folder.policy)
    return folder


def compare(*arguments: object):
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def compared(folder: Path) -> set[str]:
    (report,) = folder.rglob("comparison.json")
    rows = json.loads(report.read_text(encoding="utf-8"))["schedulers"]
    return {row["name"] for row in rows}


def test_a_run_is_compared_under_its_own_config(run, tmp_path):
    compare("--run", run.path, "--quiet")
    (report,) = (tmp_path / "outputs" / "scheduler_comparison").glob("run_*")
    assert compared(report) == {"ppo", "least_outstanding", "round_robin"}
    assert not run.comparison.exists()


def test_the_report_says_what_the_run_knows_of_its_policies(run, tmp_path):
    step = {"number": 0, "labels": 27, "regret": 0.25, "regret_at_random": 1.5, "agreement": 0.5}
    taught = {"method": "costs", "best": 0, "history": [step]}
    run.warm_start.write_text(json.dumps(taught), encoding="utf-8")
    for name, of in (("run", ["--run", run.path]), ("file", ["--policy", run.policy])):
        config = ["--config", run.config, "--set", "evaluation.vidur_workloads=0"]
        compare(*of, *config, "--output-dir", tmp_path / name, "--quiet")
    facts = [
        json.loads((tmp_path / name / "comparison" / "comparison.json").read_text())["facts"]
        for name in ("run", "file")
    ]
    assert facts[0]["Warm start"] == (
        "learned from costs; held-out regret after each round 0.250 request-seconds "
        "(at random 1.500)"
    )
    assert "Warm start" not in facts[1]


def test_a_policy_file_is_compared_under_any_config(run, tmp_path):
    other = run.path / "other.json"
    other.write_text(run.config.read_text(encoding="utf-8"), encoding="utf-8")
    compare(
        "--policy", run.policy, "--config", other, "--output-dir", tmp_path / "report",
        "--set", 'evaluation.schedulers=["least_outstanding"]',
    )  # fmt: skip
    assert compared(tmp_path / "report") == {"ppo", "least_outstanding"}


def test_the_networks_threads_are_those_of_the_config(run, tmp_path):
    changes = ("--set", "training.torch_threads=2", "--set", "evaluation.vidur_workloads=0")
    try:
        compare("--run", run.path, "--output-dir", tmp_path / "report", "--quiet", *changes)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_policy_of_another_observation_is_refused_before_anything_runs(run, tmp_path):
    with pytest.raises(UserError, match="other features"):
        compare("--run", run.path, "--set", "observation.queue_slots=3")
    assert not (tmp_path / "outputs" / "scheduler_comparison").exists()


def test_a_run_without_a_policy_is_named(run):
    run.policy.unlink()
    with pytest.raises(UserError, match=r"run_1: holds no policy\.pt"):
        compare("--run", run.path)


def test_the_newest_run_of_any_config_that_has_a_policy_is_taken(run, tmp_path, monkeypatch):
    scenario = tmp_path / "outputs" / "a_scenario" / "runs" / "run_0"
    shutil.copytree(run.path, scenario)
    os.utime(scenario / "ppo_training.log", (4e9, 4e9))
    unfinished = RunFolder(tmp_path / "outputs" / "some_runs" / "run_2")
    shutil.copytree(run.path, unfinished.path)
    unfinished.policy.unlink()
    os.utime(unfinished.log, (5e9, 5e9))
    monkeypatch.chdir(tmp_path)
    settings = ("--set", "evaluation.vidur_workloads=0", "--set", "monitoring.log_level=info")
    compare(*settings, "--output-dir", tmp_path / "report", "--quiet")
    log = (tmp_path / "report" / "comparison.log").read_text(encoding="utf-8")
    assert f"the policies: {Path('outputs/a_scenario/runs/run_0/policy.pt')}" in log
    assert re.search(r"compared 1/3, about 0:\d\d:\d\d left: \w+, mean E2E", log)
    assert re.search(r"compared 3/3, about 0:00:00 left: ", log)


def test_without_a_policy_anywhere_that_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no training to look at"):
        compare()


def test_run_and_policy_exclude_each_other(run):
    with pytest.raises(UserError, match="leave one of them out"):
        compare("--run", run.path, "--policy", run.policy)


@pytest.fixture
def other(run):
    """The folder of another run, with the same policy."""
    folder = RunFolder(run.path.parent / "run_2")
    shutil.copytree(run.path, folder.path)
    return folder


def test_several_policies_are_compared_in_one_report(run, other, tmp_path):
    compare(
        "--policy", run.policy, "--policy", f"mine={other.policy}", "--config", run.config,
        "--output-dir", tmp_path / "report", "--quiet", "--set", "evaluation.vidur_workloads=0",
    )  # fmt: skip
    assert compared(tmp_path / "report") == {"run_1", "mine", "least_outstanding", "round_robin"}
    (report,) = (tmp_path / "report").rglob("comparison.json")
    rows = {row["name"]: row for row in json.loads(report.read_text())["schedulers"]}
    assert [name for name, row in rows.items() if row["learned"]] == ["run_1"]
    same = rows["mine"]["versus"]["run_1"]["e2e_mean_s"]
    assert (same["difference"], same["interval"]) == (0.0, [0.0, 0.0])
    page = (tmp_path / "report" / "comparison" / "comparison.html").read_text(encoding="utf-8")
    assert "<h1>2 policies: scheduler comparison</h1>" in page
    assert str(other.policy) in page


def test_policies_are_called_by_what_tells_them_apart(run, other):
    best = other.path / "best.pt"
    shutil.copy(other.policy, best)
    files = [str(run.policy), str(other.policy), str(best)]
    assert named_policies(files) == {
        "run_1": run.policy, "run_2": other.policy, "run_2/best": best
    }  # fmt: skip
    assert named_policies(files[:1]) == {"ppo": run.policy}
    assert named_policies([f"a b={run.policy}"]) == {"a b": run.policy}


def test_a_path_with_an_equals_sign_is_a_path(run, tmp_path, monkeypatch):
    odd = tmp_path / "lr=3.pt"
    shutil.copy(run.policy, odd)
    assert named_policies([str(odd)]) == {"ppo": odd}
    monkeypatch.chdir(tmp_path)
    assert named_policies(["lr=3.pt"]) == {"ppo": Path("lr=3.pt")}


def test_the_home_folder_of_a_named_policy_is_found(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.path))
    assert named_policies(["mine=~/policy.pt"]) == {"mine": run.policy}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["{run}", "{run}"], "names 'run_1' twice"),
        (["a={run}", "a={other}"], "names 'a' twice"),
        (["a={run}", "b={run}"], "compared as 'a' already"),
        (["lookahead={run}"], "'lookahead' is no name for a policy"),
        (["={run}"], "'' is no name for a policy"),
        (["a\x1b={run}"], "no name for a policy"),
        (["_hidden={run}"], "no name for a policy"),
        (["{long}={run}"], "no name for a policy"),
    ],
)
def test_names_that_would_mislead_are_refused_before_anything_runs(run, other, texts, said):
    named = [text.format(run=run.policy, other=other.policy, long=41 * "a") for text in texts]
    arguments = [part for text in named for part in ("--policy", text)]
    with pytest.raises(UserError, match=re.escape(said)):
        compare(*arguments, "--config", run.config)


@pytest.mark.parametrize(
    "text",
    ["", "0.5", "0.5,0.5", "0.5,x", "0.5,nan", "0.01,0.5", "0.5,3", "-1,1", "0.5,,1", "1,inf"],
)
def test_loads_that_are_no_shares_are_refused_before_anything_runs(run, tmp_path, text):
    with pytest.raises(UserError, match=r"two or more different shares of saturation"):
        compare("--run", run.path, "--loads", text)
    assert not (tmp_path / "outputs" / "scheduler_comparison").exists()


def test_loads_need_the_engine_that_finds_saturation(run, tmp_path):
    on_vidur = ["simulation.engine=vidur", "ppo_config.advantage=gae", "warmstart.method=imitation"]
    changes = [part for one in on_vidur for part in ("--set", one)]
    with pytest.raises(UserError, match='saturation is found on the compiled engine, not on "vid'):
        compare("--run", run.path, "--loads", "0.5,1.0", *changes)
    assert not (tmp_path / "outputs" / "scheduler_comparison").exists()


def test_loads_are_compared_when_they_are_asked_for(run, tmp_path):
    compare(
        "--run", run.path, "--loads", "0.9,0.5", "--output-dir", tmp_path / "report", "--quiet",
        "--set", "evaluation.vidur_workloads=0", "--set", "monitoring.log_level=info",
    )  # fmt: skip
    folder = tmp_path / "report" / "comparison"
    document = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["load_sweep"]
    assert [point["load"] for point in document["points"]] == [0.5, 0.9]
    assert {path.name for path in folder.iterdir()} >= {"loads.csv", "loads.png"}
    log = (tmp_path / "report" / "comparison.log").read_text(encoding="utf-8")
    assert "comparing at 50 %, 90 % of saturation" in log
    assert re.search(r"over load 3/3: \w+", log)
    assert "Over load, 100 % is" in log
