"""What ``docs/first_steps.md`` says is so."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from ppo_scheduler.monitoring.scalars import scalar_names
from vidur_ext.config.fields import leaf_fields
from vidur_ext.config.loading import dump_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.components import COMPONENT_NAMES
from vidur_ext.runs.pipeline import run_pipeline
from vidur_ext.runs.start import Start

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "first_steps.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", PAGE)


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """Every text in the program."""
    files = [file for place in ("src", "vidur_ext") for file in (ROOT / place).rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def test_the_example_routes_a_workload_with_the_policy_of_a_run(
    make_config, train, tmp_path, monkeypatch, capsys
):
    config = make_config()
    trained = train(config, "RUN")
    (trained.run / "config.json").write_text(dump_config(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/first_steps.md", "exec"), {})
    said = re.fullmatch(r"64 requests, mean latency ([\d.]+) s\n", capsys.readouterr().out)
    assert said is not None
    assert 0.1 < float(said[1]) < 60.0


def test_the_files_of_a_run_are_there(make_config):
    evaluation = {"schedulers": ["least_outstanding"], "requests": 32, "vidur_workloads": 0}
    training = {"total_requests": 80, "episode_requests": 80}
    folder = run_pipeline(
        Start(make_config(evaluation=evaluation, training=training)), quiet=True
    ).path
    [table] = re.findall(r"^\| file below `RUN`.*?\n\n", PAGE, re.M | re.S)
    named = re.findall(r"`([\w./]+)`", table.split("|---|---|")[1])
    named += [name.removeprefix("RUN/") for name in CODE if name.startswith("RUN/")]
    assert len(named) >= 9
    assert [name for name in named if not (folder / name).exists()] == []


def test_curves_and_keys_have_these_names():
    curves = set(scalar_names(4, COMPONENT_NAMES))
    keys = {path for path, _ in leaf_fields(TrainingConfig)}
    groups = {name.split("/")[0] for name in curves}
    drawn = [
        name for name in CODE if name.split("/")[0] in groups and not name.endswith(("/", "_"))
    ]
    assert len(drawn) >= 9
    assert [name for name in drawn if name not in curves] == []
    sections = {path.split(".")[0] for path in keys}
    settings = [re.sub(r"^--set |=.*", "", name) for name in CODE]
    settings = [name for name in settings if "." in name and name.split(".")[0] in sections]
    settings = [name for name in settings if not name.endswith((".json", ".md"))]
    assert len(settings) >= 10
    assert [name for name in settings if name not in keys] == []


def test_what_is_quoted_is_said_by_the_program(messages):
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    quoted = re.findall(r'"([^"\n]+)"', re.sub(r"\n +", " ", prose))
    quoted = [text for text in quoted if " " in text]
    assert len(quoted) >= 7
    assert [text for text in quoted if not any(text in said for said in messages)] == []


def test_links_and_scripts_lead_somewhere():
    links = re.findall(r"\]\(([\w.]+)\)", PAGE)
    scripts = re.findall(r"\./(scripts/\w+\.sh)", PAGE)
    assert links
    assert scripts
    assert [name for name in links if not (ROOT / "docs" / name).exists()] == []
    assert [name for name in scripts if shutil.which(str(ROOT / name)) is None] == []
