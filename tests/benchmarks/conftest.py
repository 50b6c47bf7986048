"""Benchmarks in processes of their own, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A program of ours that was tried in this process may have left word for its children.
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**inherited, "PYTHONPATH": paths},
        check=False,
    )


@pytest.fixture
def run_python(tmp_path):
    """Run Python on a command line in an empty folder."""
    return lambda *arguments: python(tmp_path, *map(str, arguments))
