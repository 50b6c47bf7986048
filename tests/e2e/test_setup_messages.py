"""What the drivers say when a machine cannot be set up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pexpect
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
        ("df() { printf 'h\\nfs 9 9 100 1%% /\\n'; }; check_disk 3000", "has 100 MB of free disk"),
        ("command() { return 1; }; find_python", "no Python 3.10-3.13 found"),
        ("PYTHON='/no such/python' find_python", "found at PYTHON=/no such/python"),
        ("VENV=/proc/no/.venv; once STAMP true true", "cannot create /proc/no/.venv"),
    ],
)
def test_an_unfit_machine_gets_one_line(tmp_path, script, message):
    result = shell(f"VENV='{tmp_path}'; {script}")
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_installed_already_needs_no_room(tmp_path):
    (tmp_path / "torch").write_bytes(bytes(8 << 20))
    nearly_full = f"VENV='{tmp_path}'; df() {{ printf 'h\\nfs 9 9 100 1%% /\\n'; }}; "
    assert shell(f"{nearly_full} check_disk 106").returncode == 0
    assert "MB more" in shell(f"{nearly_full} check_disk 120").stderr


def test_a_failing_installation_says_why_and_where_its_log_is(tmp_path):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: Could not find a version'; exit 1\n")
    python.chmod(0o755)
    result = shell(f"VENV='{tmp_path}'; pip_install -r requirements.txt")
    assert result.returncode == 2
    assert "Could not find a version" in result.stderr
    assert f"{tmp_path}/install.log" in result.stderr


def test_the_stamp_follows_the_requirements_and_the_place(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    stamps = []
    for text, place in (("one==1", "p"), ("one==1", "p"), ("one==2", "p"), ("one==1", "q")):
        (tmp_path / "requirements.txt").write_text(text)
        script = f"PROJECT_ROOT='{tmp_path}'; VENV={place}/.venv; wanted_stamp"
        stamps.append(shell(script).stdout)
    assert stamps[0] == stamps[1]
    assert len(set(stamps)) == 3


CHECKOUT = """
PROJECT_ROOT='{0}'; VENV="$PROJECT_ROOT/.venv"
STAMP="$VENV/stamp"; TEST_STAMP="$VENV/test_stamp"
mkdir -p "$VENV/bin"; ln -sf "$(command -v python3)" "$VENV/bin/python"
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with requirements; run scripts in it that know it as the project's."""
    for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        (tmp_path / name).write_text("one==1\n")

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return shell(CHECKOUT.format(tmp_path) + script)

    return run


def test_a_stamped_environment_is_used_as_it_is(checkout):
    stamp = 'wanted_stamp >"$STAMP"; wanted_test_stamp >"$TEST_STAMP"; '
    result = checkout(stamp + "ensure_test_environment && echo ready")
    assert (result.stdout, result.stderr) == ("ready\n", "")


def test_an_interrupted_installation_goes_on_at_the_next_start(checkout):
    once = 'once "$STAMP" wanted_stamp '
    assert checkout("half() { echo half; exit 130; }; " + once + "half").returncode == 130
    for said in ("whole\n", ""):
        result = checkout("whole() { echo whole; }; " + once + "whole")
        assert (result.returncode, result.stdout) == (0, said)


@pytest.fixture
def installed(checkout):
    """Make a real environment; what pip installs into it is only said."""

    def install(before: str) -> subprocess.CompletedProcess[str]:
        steps = 'install_torch() { echo torch; }; pip_install() { echo "${@: -1}"; }; '
        return checkout(steps + before + "; ensure_environment")

    return install


@pytest.mark.parametrize(
    "broken",
    [
        'mkdir -p "$VENV/bin"; ln -sf /no/python "$VENV/bin/python"; wanted_stamp >"$STAMP"',
        'rm -r "$VENV"; "$(find_python)" -m venv --without-pip "$VENV"',
    ],
    ids=["its interpreter is gone", "interrupted before pip was there"],
)
def test_a_broken_environment_is_mended(installed, tmp_path, broken):
    result = installed(broken)
    assert result.returncode == 0, result.stderr
    assert "torch" in result.stdout
    pip = [tmp_path / ".venv" / "bin" / "python", "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True, check=False).returncode == 0


def test_a_moved_or_copied_project_is_installed_anew_from_where_it_lies(installed, tmp_path):
    assert installed("true").returncode == 0
    assert installed("true").stdout == ""
    copied = tmp_path / "copy"
    copied.mkdir()
    for name in ("requirements.txt", "pyproject.toml", ".venv"):
        subprocess.run(["cp", "-r", tmp_path / name, copied], check=True)
    result = installed(f"PROJECT_ROOT='{copied}'; VENV='{copied}/.venv'; STAMP=\"$VENV/stamp\"")
    assert result.stdout.splitlines()[-1] == str(copied)


def test_ctrl_c_while_pip_works_is_no_error_of_pip(checkout, tmp_path, finished):
    script = CHECKOUT.format(tmp_path) + (
        "pip() { (trap 'exit 1' INT; echo begun; for ((;;)); do sleep 0.1; done); }; "
        "install() { pip || die 'pip could not install'; }; "
        'once "$STAMP" wanted_stamp install'
    )
    child = pexpect.spawn("bash", ["-c", f"source '{COMMON}'; {script}"], encoding="utf-8")
    child.expect("begun")
    child.sendintr()
    status, text = finished(child)
    assert status == 130
    assert "the next start goes on" in text
    assert "pip could not" not in text


def test_new_test_requirements_do_not_set_up_what_runs_anew(checkout, tmp_path):
    install = (
        "install_environment() { echo run; }; install_test_tools() { echo test; }; "
        "ensure_test_environment"
    )
    assert checkout(install).stdout == "run\ntest\n"
    (tmp_path / "requirements-dev.txt").write_text("one==2\n")
    assert checkout(install).stdout == "test\n"
    (tmp_path / "requirements.txt").write_text("one==2\n")
    assert checkout(install).stdout == "run\ntest\n"


def test_only_one_of_two_scripts_installs(checkout):
    both = (
        'install() { echo installs; sleep 1; }; set_up() { once "$STAMP" wanted_stamp install; }; '
        "set_up & sleep 0.3; set_up; wait"
    )
    result = checkout(both)
    assert result.stdout == "installs\n"
    assert "waiting" in result.stderr


TORCH = """
torch_exists() {{ echo "asks ${{*:2}}" >&2; [[ "$*" == {0} ]]; }}
pip_install() {{ printf '%s ' "${{@:3}}"; }}
echo 'torch==9.9' >"$PROJECT_ROOT/requirements.txt"; TORCH_INDEX_URL=there
install_torch
"""


@pytest.mark.parametrize(
    ("exists", "installed", "said"),
    [
        ("9.9+cpu", "torch==9.9+cpu", "1.8 GB"),
        ("'9.9+cpu --extra-index-url there'", "torch==9.9+cpu --extra-index-url there", "1.8 GB"),
        ("nowhere", "torch==9.9", "there has no torch==9.9 without CUDA"),
    ],
)
def test_torch_comes_without_cuda_where_it_can(checkout, exists, installed, said):
    result = checkout(TORCH.format(exists))
    assert result.stdout.strip() == installed
    assert said in result.stderr


def test_an_index_that_does_not_answer_costs_seconds(tmp_path):
    """Nobody listens at port 9 of this machine."""
    script = "VENV='{}'; torch_exists 9.9+cpu --extra-index-url http://127.0.0.1:9/simple"
    environment = Path(sys.executable).parents[1]
    begun = time.monotonic()
    assert shell(script.format(environment)).returncode == 1
    assert time.monotonic() - begun < 20


def test_a_terminal_sees_what_pip_is_at(finished):
    script = f"source '{COMMON}'; (echo Collecting torch; sleep 1.5; echo Installing all) "
    child = pexpect.spawn("bash", ["-c", script + "| show_progress"], encoding="utf-8")
    child.expect("0:00 Collecting torch")
    child.expect("0:01 Collecting torch")
    child.expect("Installing all")
    assert finished(child)[0] == 0
