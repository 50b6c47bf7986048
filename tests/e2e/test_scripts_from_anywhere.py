"""Scripts work from where the user stands, however they are called and whatever a shell exports."""

from __future__ import annotations

import os
import subprocess

import pytest

SCRIPT = "monitor_training.sh"
FOUND = "latency p99"


@pytest.fixture
def project(trained):
    """A checkout with a finished training, and a folder elsewhere that a user stands in."""
    (trained.path / "elsewhere").mkdir()
    return trained.with_scripts().path


def run(command, cwd, **environment: str) -> str:
    result = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_paths_are_taken_from_where_the_user_stands(project):
    script = os.path.join("..", "scripts", SCRIPT)
    assert FOUND in run([script, "../outputs"], project / "elsewhere")


def test_a_home_folder_that_no_shell_has_expanded_is_meant(project):
    (project / "elsewhere" / "runs").symlink_to(project / "outputs")
    home = {"HOME": str(project / "elsewhere")}
    assert FOUND in run([project / "scripts" / SCRIPT, "~/runs"], "/", **home)


@pytest.mark.parametrize(
    "exported",
    [
        {"CDPATH": ".:/tmp:/"},
        {"SHELLOPTS": "braceexpand:hashall:noclobber"},
        {"POSIXLY_CORRECT": "1"},
    ],
    ids=lambda exported: next(iter(exported)),
)
def test_what_another_shell_exports_does_not_matter(project, exported):
    assert FOUND in run(["scripts/" + SCRIPT, "outputs"], project, **exported)


def test_a_link_to_a_script_runs_it(project):
    link = project / "elsewhere" / "monitor"
    link.symlink_to(project / "scripts" / SCRIPT)
    assert FOUND in run([link, "outputs"], project)


def test_tests_are_named_from_where_the_user_stands(project):
    """The arguments that pytest would get are shown by a stand-in for it."""
    shown = project / "elsewhere" / "shown"
    shown.mkdir()
    (shown / "pytest.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:])")
    (shown / "test_one.py").touch()
    environment = {"PYTHONPATH": str(shown), "BASH_ENV": "/dev/null"}
    script = (
        f"source '{project}/scripts/lib/common.sh'; ensure_test_environment() {{ true; }}; "
        f"source() {{ true; }}; . '{project}/scripts/run_tests.sh' test_one.py::test_it -v"
    )
    text = run(["bash", "-c", script], shown, **environment)
    assert text.split("\n")[0] == f"{project} ['{shown}/test_one.py::test_it', '-v']"
