"""``scripts/run_tests.sh`` finds the environment and hands its arguments to pytest."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest


@pytest.fixture
def project(place):
    """A project whose test tools are installed already, and that has one test."""
    project = place.with_scripts().path
    tools = project / "requirements-dev.txt"
    tools.write_text("pytest\n")
    stamps = project / ".venv"
    for name in ("pyvenv.cfg", "lib"):  # its python is started, not a program of the environment
        (stamps / name).symlink_to(Path(sys.prefix) / name)
    installed = (stamps / ".requirements.sha256").read_bytes() + tools.read_bytes()
    (stamps / ".requirements-dev.sha256").write_text(hashlib.sha256(installed).hexdigest() + "\n")
    (project / "tests").mkdir()
    (project / "tests" / "test_one.py").write_text("def test_one():\n    pass\n")
    return place


@pytest.mark.parametrize(("arguments", "workers"), [([], True), (["tests/test_one.py"], False)])
def test_all_tests_run_on_all_processors_and_one_file_in_one_process(
    project, read, arguments, workers
):
    status, text = read(project.script("run_tests.sh", *arguments))
    assert (status, "1 passed" in text) == (0, True), text
    assert ("bringing up nodes" in text) == workers
