"""What ``demos``, ``pretrain`` and ``validate-model`` refuse, and that a refusal leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppo_scheduler.errors import UserError
from vidur_ext.cli import app
from vidur_ext.config.training_config import TrainingConfig

MISSING_TRACE = ["--set", "workload.source=trace", "--set", "workload.trace_file=none.csv"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder that has the default config."""
    config = Path("configs/ppo_warmstart.json").resolve().read_text()
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/ppo_warmstart.json").write_text(config)

    def invoke(*arguments: str):
        result = CliRunner().invoke(app, arguments, terminal_width=200)
        refused = isinstance(result.exception, UserError)
        assert result.exception is None or isinstance(result.exception, SystemExit) or refused
        return result

    return invoke


def unwrapped(help_text: str) -> str:
    """Return the text of a help page in one line, without its frames."""
    return " ".join(help_text.replace("│", " ").split())


def refusal(result) -> str:
    assert isinstance(result.exception, UserError)
    return str(result.exception)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["demos", "collect", *MISSING_TRACE], "no such trace file"),
        (["demos", "collect", "--demo-steps", "0"], "warmstart.demo_requests = 0"),
        (["pretrain", *MISSING_TRACE], "no such trace file"),
        (["pretrain", "--bc-epochs", "-1"], "warmstart.epochs = -1"),
        (["pretrain", "--finetune", "configs/ppo_warmstart.json"], "cannot be read as a policy"),
        (["pretrain", "--output-dir", "configs"], "configs: is not empty"),
        (["pretrain", "--demonstrations", "none"], "no demonstration set"),
        (["pretrain", "--demonstrations", "x", "--demo-steps", "99"], "say one"),
        (["demos", "info", "none"], "no demonstration set"),
        (["demos", "list", "none"], "no such folder"),
        (["demos", "clean", "--quiet"], "say --yes"),
        (["demos", "clean", "--json"], "say --yes"),
        (["validate-model", "none.pt"], "no such file"),
    ],
)
def test_a_refusal_says_why_and_leaves_nothing_that_looks_like_a_result(run, words, reason):
    assert reason in refusal(run(*words))
    assert [path.name for path in Path.cwd().rglob("*") if path.is_file()] == ["ppo_warmstart.json"]
    assert not list(Path.cwd().glob("outputs/*/*"))


@pytest.fixture
def other_config(tmp_path):
    """Write a config of another cluster; return its name."""

    def write(**groups):
        Path("other.json").write_text(json.dumps({"cluster": {"num_replicas": 2}, **groups}))
        return "other.json"

    return write


@pytest.mark.parametrize(
    ("groups", "words", "reason"),
    [
        ({}, ["--set", "warmstart.method=imitation"], "learns on one cluster"),
        ({}, ["--demonstrations", "configs"], "are of one cluster"),
        (
            {"observation": {"queue_slots": 5}}, [],
            "observation.queue_slots is 5 there and 2 in the config",
        ),
        ({"cluster": {"replicas": 3}}, [], "other.json"),
        ({"workload": {"source": "trace", "trace_file": "none.csv"}}, [], "no such trace file"),
    ],
)  # fmt: skip
def test_a_cluster_that_one_policy_cannot_learn_on_is_refused(
    run, other_config, groups, words, reason
):
    assert reason in refusal(run("pretrain", "--also", other_config(**groups), *words))
    assert not Path("outputs").exists()


def test_another_clusters_engine_must_price_choices(run, other_config):
    on_vidur = {
        "simulation": {"engine": "vidur"}, "parallel_training": {"num_envs": 1},
        "ppo_config": {"advantage": "gae"}, "warmstart": {"method": "imitation"},
    }  # fmt: skip
    assert "compiled" in refusal(run("pretrain", "--also", other_config(**on_vidur)))


def test_before_anything_was_collected_there_is_nothing_to_list_or_delete(run):
    assert json.loads(run("demos", "list", "--json").stdout)["sets"] == []
    assert json.loads(run("demos", "clean", "--yes", "--json").stdout)["deleted"] == []
    assert not Path("outputs").exists()


def test_a_folder_that_only_looks_like_a_set_is_shown_and_never_deleted(run):
    Path("mine").mkdir()
    Path("mine/demonstration_set.json").write_text("{}")
    cleaned = run("demos", "clean", "mine", "--yes")
    assert cleaned.exit_code == 0
    assert "cannot be used: mine" in cleaned.output
    assert Path("mine/demonstration_set.json").read_text() == "{}"


def test_a_file_that_is_no_policy_does_not_fit_and_json_says_why(run):
    result = run("validate-model", "configs/ppo_warmstart.json", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["fits"]) == (1, False)
    assert "cannot be read as a policy file" in told["problem"]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (
            ["demos", "collect"],
            ("warmstart.demo_requests", "warmstart.labels_per_round", "training.output_root"),
        ),
        (
            ["pretrain"],
            ("warmstart.epochs", "warmstart.rounds", "warmstart.demo_requests", "training.seed"),
        ),
    ],
)
def test_help_shows_the_defaults_of_the_config_that_is_named(run, words, values):
    path = Path("configs/ppo_warmstart.json")
    document = json.loads(path.read_text())
    document["warmstart"]["demo_requests"] = 777
    document["warmstart"]["labels_per_round"] = 8888
    section = TrainingConfig().warmstart
    assert (section.demo_requests, section.labels_per_round) != (777, 8888)
    Path("other.json").write_text(json.dumps(document))
    shown = run(*words, "--config", "other.json", "--help").output
    assert "warmstart.demo_requests 777, warmstart.labels_per_round 8888" in unwrapped(shown)
    assert all(value in shown for value in values)
