"""What is imported is declared, and what is declared is pinned."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN = {"ppo-scheduler", "vidur-ext"}


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def pins(file: str) -> dict[str, str]:
    """Return the versions that a lock has for this Python."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    chosen: dict[str, str] = {}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        if requirement.marker is None or requirement.marker.evaluate():
            [pin] = requirement.specifier
            assert pin.operator == "=="
            assert chosen.setdefault(canonicalize_name(requirement.name), pin.version) == (
                pin.version
            )
    return chosen


def imported(*folders: str) -> dict[str, str]:
    """Return the distribution of every import, with a file that has it."""
    distributions = packages_distributions()
    found: dict[str, str] = {}
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for name in modules(file):
            if name not in sys.stdlib_module_names:
                [distribution, *_] = distributions.get(name, [name])
                found.setdefault(canonicalize_name(distribution), f"{file}: {name}")
    return found


def modules(file: Path) -> Iterator[str]:
    """Yield the packages that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            imports = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imports = [node.module or ""]
        else:
            continue
        yield from (name.partition(".")[0] for name in imports)


RUNS = names(PROJECT["project"]["dependencies"])
EXTRAS = {
    extra: names(texts) - OWN
    for extra, texts in PROJECT["project"]["optional-dependencies"].items()
}


def test_what_the_product_imports_is_declared():
    undeclared = imported("src", "vidur_ext").keys() - RUNS - EXTRAS["wandb"] - OWN
    assert not undeclared, [imported("src", "vidur_ext")[name] for name in undeclared]


def test_what_is_declared_is_used():
    assert imported("src", "vidur_ext").keys() >= RUNS


def test_what_tests_and_benchmarks_import_is_declared():
    on_path = [ROOT / folder for folder in PROJECT["tool"]["pytest"]["ini_options"]["pythonpath"]]
    beside = {file.stem.replace("_", "-") for folder in on_path for file in folder.glob("*.py")}
    # benchmarks/training.py, record_vllm.py and dynamo_crosscheck.py tell how to get them.
    asked_for = {"stable-baselines3", "vllm", "dynamo"}
    found = imported("tests", "benchmarks")
    undeclared = found.keys() - RUNS - EXTRAS["wandb"] - EXTRAS["dev"] - OWN - beside - asked_for
    assert undeclared <= {"tomli"}, [found[name] for name in undeclared]  # pytest's own, on 3.10


@pytest.mark.parametrize(
    ("lock", "declared"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("requirements-dev.txt", PROJECT["project"]["optional-dependencies"]["dev"]),
    ],
)
def test_the_lock_is_within_the_ranges(lock, declared):
    pinned = pins("requirements.txt") | pins(lock)
    for requirement in map(Requirement, declared):
        name = canonicalize_name(requirement.name)
        if name not in OWN:
            assert requirement.specifier.contains(pinned[name], prereleases=True), requirement


def test_users_get_no_test_tools():
    assert not pins("requirements.txt").keys() & (EXTRAS["dev"] - {"packaging", "scipy"})
    assert not pins("requirements.txt").keys() & pins("requirements-dev.txt").keys()


def test_the_lock_is_complete_but_for_what_is_left_out():
    """pip installs it without asking what its packages need."""
    left_out = names(PROJECT["tool"]["uv"]["override-dependencies"])
    pinned = pins("requirements.txt")
    lacking = {
        f"{package} needs {name}"
        for package in pinned
        for name in needed_by(package)
        if name not in pinned and name not in left_out and not re.match("nvidia|cuda|triton", name)
    }
    assert not lacking
    assert not left_out & pinned.keys()


def needed_by(package: str) -> set[str]:
    try:
        texts = requires(package) or []
    except PackageNotFoundError:  # another environment than the lock's; .ci/run has the lock's
        pytest.skip(f"{package} is not installed")
    needed = map(Requirement, texts)
    return {
        canonicalize_name(requirement.name)
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
