"""Every benchmark can be run: each has a ``--quick`` that ends soon and well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
NEEDED = {
    "dynamo_crosscheck": "dynamo",
    "record_vllm": "vllm",
    "stable_baselines": "stable_baselines3",
    "training": "stable_baselines3",
}
"""What benchmarks need that is not among our dependencies."""
NEEDS_A_GPU = {"gpu_iterations"}


def test_there_are_benchmarks():
    assert len(SCRIPTS) > 10


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs_quickly(script, run_python):
    if script.stem in NEEDED:
        pytest.importorskip(NEEDED[script.stem])
    if script.stem in NEEDS_A_GPU and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    ended = run_python(script, "--quick")
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert ended.stdout


def test_without_a_gpu_a_measurement_on_one_says_so_in_a_line(run_python, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = run_python(ROOT / "benchmarks" / "gpu_iterations.py", "--quick")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "torch finds no GPU" in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fidelity", "fit_lengths", "fit_predictor"])
def test_a_tool_that_wants_a_file_runs_without_one_too(name, run_python):
    ended = run_python(ROOT / "benchmarks" / f"{name}.py", "--quick")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_what_is_not_installed_is_said_in_a_line(name, run_python):
    script = ROOT / "benchmarks" / f"{name}.py"
    code = (
        f"import sys, runpy; sys.modules[{NEEDED[name]!r}] = None; "
        f"sys.argv = [{str(script)!r}, '--quick']; sys.path.insert(0, {str(script.parent)!r}); "
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    ended = run_python("-c", code)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert NEEDED[name].removesuffix("3").replace("_", "-") in ended.stderr
