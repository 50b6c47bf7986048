"""What ``pip install`` brings works from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "vidur_ext.cli"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel installs; built from a copy, which keeps the checkout clean."""
    source = tmp_path_factory.mktemp("source")
    for name in ("src", "vidur_ext", "configs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--no-index", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)],
        check=True,
        timeout=120,
    )
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Run the installed program in an empty folder."""

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return start


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


def test_the_wheel_has_every_file_that_is_no_code(installed):
    assert files(installed / "vidur_ext" / "configs", "*.json") == files(ROOT / "configs", "*.json")
    pages = files(installed / "vidur_ext", "*.html")
    assert pages
    assert pages == files(ROOT / "vidur_ext", "*.html")
    for package in ("ppo_scheduler", "vidur_ext"):
        assert (installed / package / "py.typed").exists()
    assert not list(installed.rglob("test*"))


@pytest.mark.parametrize(
    ("name", "options"), [("ppo_warmstart.json", []), ("quick_test.json", ["--quick-test"])]
)
def test_the_programs_own_configs_are_used_in_any_folder(run, tmp_path, name, options):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / name).write_text("somebody else's")
    config = json.loads((ROOT / "configs" / name).read_text(encoding="utf-8"))
    told = run("train", *options, "--help")
    assert f"training.total_requests {config['training']['total_requests']}" in told.stdout, (
        told.stderr
    )


def test_a_config_of_the_operator_counts_from_the_working_folder(run, tmp_path):
    (tmp_path / "mine.json").write_text('{"training": {"seed": 77}}')
    shown = run("config", "show", "--changed", "--config", "mine.json")
    assert "77" in shown.stdout, shown.stderr


def test_the_version_is_told_at_once(run, installed):
    shown = run("--version")
    [metadata] = installed.glob("ppo_scheduler-*.dist-info")
    number = metadata.name.removesuffix(".dist-info").partition("-")[2]
    assert shown.stdout.startswith(f"ppo-scheduler {number} (python 3.")
    assert all(f" {name} " in shown.stdout for name in ("torch", "vidur", "numpy"))
    code = "import sys; sys.argv[1:] = ['--version']; import vidur_ext.cli as c; "
    code += "c.app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_wandb_a_training_that_wants_it_is_refused_before_it_begins(tmp_path):
    """Vidur brings the package along, so that its absence has to be made."""
    code = (
        "import sys; sys.modules['wandb'] = None; from vidur_ext.cli import main; "
        "sys.argv[1:] = ['train', '--resume', 'never', '--set', 'monitoring.wandb=offline']; main()"
    )
    refused = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert 'pip install "ppo-scheduler[wandb]"' in refused.stderr
    assert list(tmp_path.iterdir()) == []
