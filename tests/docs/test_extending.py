"""The examples of ``docs/extending.md`` work as they stand: each is tried on a copy of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
WALKS = [title for title, text in SECTIONS.items() if "```" in text]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the two packages, as a checkout has them."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("src", "vidur_ext", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    return tmp_path


def write_files(section: str, root: Path) -> list[Path]:
    """Write the blocks that are whole files; return their paths."""
    paths = []
    for name, content in re.findall(r"^```python file=(\S+)\n(.*?)^```$", section, re.M | re.S):
        path = root / name
        assert not path.exists(), f"{name} is there already: the example adds nothing"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        paths.append(path)
    return paths


def change_files(section: str, root: Path) -> list[Path]:
    """Apply the blocks that are changes; return the paths of the changed files."""
    paths = []
    for block in re.findall(r"^```diff\n(.*?)^```$", section, re.M | re.S):
        for part in re.split(r"^--- a/", block, flags=re.M)[1:]:
            heading, *hunks = re.split(r"^@@\n", part, flags=re.M)
            path = root / heading.splitlines()[0]
            for hunk in hunks:
                change(path, hunk.splitlines(keepends=True))
            paths.append(path)
    return paths


def change(path: Path, hunk: list[str]) -> None:
    """Replace what a hunk takes away and keeps by what it keeps and adds."""
    before, after = (
        "".join(line[1:] for line in hunk if line[0] in signs) for signs in (" -", " +")
    )
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path} must hold this once:\n{before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.mark.parametrize("title", WALKS)
def test_the_example_works_in_a_copy_of_the_code(title: str, copy: Path) -> None:
    written = write_files(SECTIONS[title], copy)
    change_files(SECTIONS[title], copy)
    tests = [str(path) for path in written if path.name.startswith("test_")]
    assert tests, "an example ends with its test"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    places = {"PYTHONPATH": f"src{os.pathsep}.", "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [*command, *tests],
        cwd=copy,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("title", WALKS)
def test_it_touches_as_many_source_files_as_the_page_says(title: str, copy: Path) -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| {title.lower()} |")]
    paths = {*write_files(SECTIONS[title], copy), *change_files(SECTIONS[title], copy)}
    sources = {path.relative_to(copy) for path in paths if "tests" not in path.parts}
    if "and its row" in row:
        sources.remove(Path("vidur_ext/routing/features.py"))
    assert [int(number) for number in re.findall(r"\d+", row)] == [len(sources)]
