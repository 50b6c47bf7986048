"""``vidur-ppo config`` as an operator runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from vidur_ext.config.loading import dump_config, load_config
from vidur_ext.config.reference import config_reference
from vidur_ext.config.training_config import TrainingConfig

COMMAND = str(Path(sys.executable).with_name("vidur-ppo"))


@pytest.fixture
def run(tmp_path):
    """Run the command in an empty folder; return (status, stdout, stderr)."""

    def run_command(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run_command


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad.json").write_text('{"training": {"sed": 1}}', encoding="utf-8")
    return "bad.json"


BAD = "bad.json: training.sed = 1: unknown key; did you mean training.seed?"


def test_show_prints_the_effective_config(run, tmp_path) -> None:
    (tmp_path / "my.json").write_text('{"training": {"seed": 3}}', encoding="utf-8")
    status, out, _ = run("config", "show", "--config", "my.json", "--set", "workload.qps=5")
    assert status == 0
    assert out == dump_config(load_config(tmp_path / "my.json", ["workload.qps=5"]))


def test_show_changed_prints_only_what_differs(run) -> None:
    status, out, _ = run(
        "config", "show", "--changed", "--set", "workload.qps=5", "--set", "observation.clip=10"
    )
    assert (status, json.loads(out)) == (0, {"workload": {"qps": 5.0}})


def test_what_show_changed_prints_is_a_config_with_the_same_effect(run, tmp_path) -> None:
    override = 'curriculum_learning.stages=[{"until_requests": 5, "qps_scale": 0.5}]'
    _, out, _ = run("config", "show", "--changed", "--set", override)
    (tmp_path / "again.json").write_text(out, encoding="utf-8")
    assert load_config(tmp_path / "again.json") == load_config(None, [override])


def test_validate_says_ok_or_every_problem(run, tmp_path, bad) -> None:
    (tmp_path / "good.json").write_text("{}", encoding="utf-8")
    assert run("config", "validate", "good.json") == (0, "good.json: ok\n", "")
    status, out, err = run("config", "validate", "good.json", bad, "absent.json")
    assert (status, out) == (2, "good.json: ok\n")
    assert err == (
        f"error: {BAD}\nabsent.json: cannot read the config (No such file or directory)\n"
    )


def test_validate_says_what_no_run_could_end_well_with(run, tmp_path) -> None:
    (tmp_path / "few.json").write_text('{"cluster": {"num_blocks": 200}}', encoding="utf-8")
    status, _, err = run("config", "validate", "few.json")
    assert status == 2
    assert err.startswith("error: few.json: a request may have 8192 tokens, which take 512 KV")


def test_schema_prints_json_schema_or_the_reference_page(run) -> None:
    status, out, _ = run("config", "schema")
    assert status == 0
    assert set(json.loads(out)["properties"]) == set(TrainingConfig.model_fields)
    assert run("config", "schema", "--markdown") == (0, config_reference(), "")


def test_an_error_is_one_line_without_traceback_or_color(run, bad) -> None:
    assert run("config", "show", "--config", bad) == (2, "", f"error: {BAD}\n")


@pytest.mark.parametrize(("no_color", "colored"), [(None, True), ("1", False)])
def test_an_error_is_red_on_a_terminal_that_wants_color(tmp_path, bad, no_color, colored) -> None:
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = no_color
    output = pexpect.run(
        f"{COMMAND} config show --config {bad}", cwd=str(tmp_path), env=environment
    ).decode()
    assert ("\x1b[31m" in output) == colored
    assert BAD in output


def test_markup_in_a_value_is_shown_as_it_is(run) -> None:
    _, _, err = run("config", "show", "--set", "training.seed=[red]x[/red] :smile:")
    assert 'training.seed = "[red]x[/red] :smile:": must be' in err


@pytest.mark.parametrize("arguments", [("--nonsense",), ("config", "shwo"), ("config", "validate")])
def test_a_wrong_command_line_is_refused_with_the_way_to_help(run, arguments) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert err.endswith("(see --help)\n")


@pytest.mark.parametrize("arguments", [(), ("config",)])
def test_a_command_that_is_not_complete_shows_its_help(run, arguments) -> None:
    status, out, err = run(*arguments)
    assert status == 2
    assert "Usage: vidur-ppo" in out
    assert err == ""


def test_help_does_not_wait_for_the_simulator(tmp_path) -> None:
    program = (
        "import sys; import vidur_ext.cli as cli; "
        "print([name for name in ('torch', 'vidur', 'pandas', 'matplotlib', 'numba') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == "[]\n"
