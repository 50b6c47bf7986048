"""Every benchmark can be run: each has a ``--quick`` that ends soon and well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
NEEDS_STABLE_BASELINES = {"stable_baselines", "training"}
NEEDS_A_GPU = {"gpu_iterations"}


def run(script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )


def test_there_are_benchmarks():
    assert len(SCRIPTS) > 10


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs_quickly(script, tmp_path):
    if script.stem in NEEDS_STABLE_BASELINES:
        pytest.importorskip("stable_baselines3")
    if script.stem in NEEDS_A_GPU and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    ended = run(script, tmp_path, "--quick")
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert ended.stdout


def test_without_a_gpu_a_measurement_on_one_says_so_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = run(ROOT / "benchmarks" / "gpu_iterations.py", tmp_path, "--quick")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "torch finds no GPU" in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fidelity", "fit_lengths", "fit_predictor"])
def test_a_tool_that_wants_a_file_runs_without_one_too(name, tmp_path):
    ended = run(ROOT / "benchmarks" / f"{name}.py", tmp_path, "--quick")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout


@pytest.mark.parametrize("name", sorted(NEEDS_STABLE_BASELINES))
def test_what_is_not_installed_is_said_in_a_line(name, tmp_path):
    script = ROOT / "benchmarks" / f"{name}.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    code = (
        "import sys, runpy; sys.modules['stable_baselines3'] = None; "
        f"sys.argv = [{str(script)!r}, '--quick']; sys.path.insert(0, {str(script.parent)!r}); "
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "aseline" in ended.stderr
