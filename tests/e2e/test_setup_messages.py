"""What the drivers say when a machine cannot be set up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

COMMON = Path(__file__).resolve().parents[2] / "scripts" / "lib" / "common.sh"


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"source '{COMMON}'; {script}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("uname() { echo Darwin; }; check_platform", "Vidur's wheels exist for Linux x86_64 only"),
        ("df() { printf 'h\\nfs 9 9 100 1%% /\\n'; }; check_disk", "has 100 MB of free disk"),
        ("command() { return 1; }; find_python", "no Python 3.10-3.13 found"),
    ],
)
def test_an_unfit_machine_gets_one_line(script, message):
    result = shell(script)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_failing_installation_says_why_and_where_its_log_is(tmp_path):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: Could not find a version'; exit 1\n")
    python.chmod(0o755)
    result = shell(f"VENV='{tmp_path}'; pip_install -r requirements.txt")
    assert result.returncode == 2
    assert "Could not find a version" in result.stderr
    assert f"{tmp_path}/install.log" in result.stderr


def test_the_stamp_follows_the_requirements(tmp_path):
    (tmp_path / "requirements.txt").write_text("one==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    stamps = []
    for text in ("one==1\n", "one==1\n", "one==2\n"):
        (tmp_path / "requirements.txt").write_text(text)
        stamps.append(shell(f"PROJECT_ROOT='{tmp_path}'; wanted_stamp").stdout)
    assert stamps[0] == stamps[1] != stamps[2]


def test_a_stamped_environment_is_used_as_it_is(tmp_path):
    (tmp_path / "requirements.txt").write_text("one==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    script = (
        f"PROJECT_ROOT='{tmp_path}'; VENV='{tmp_path}/.venv'; STAMP=\"$VENV/stamp\"; "
        'mkdir "$VENV"; wanted_stamp >"$STAMP"; ensure_environment && echo ready'
    )
    result = shell(script)
    assert (result.stdout, result.stderr) == ("ready\n", "")
