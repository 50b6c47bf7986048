"""No knob without effect: every config key has a test that shows what it changes.

Such a test says so itself, by ``@pytest.mark.shows("group.key", ...)``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ppo_scheduler.config.learner_sections import CurriculumStage
from vidur_ext.config.fields import leaf_fields
from vidur_ext.config.training_config import TrainingConfig

TESTS = Path(__file__).resolve().parents[1]
STAGE = "curriculum_learning.stages[]."
MARKER = "pytest.mark.shows"


@dataclass(frozen=True)
class Shown:
    """A key, and the test that is marked to show its effect."""

    key: str
    test: str
    """As pytest names it: file below tests/ and function."""
    by_default: bool
    """The test runs in the default run."""
    named: bool
    """The key's own name stands in the file of the test, not only in the marker."""


@pytest.fixture(scope="module")
def keys() -> set[str]:
    fields = [*leaf_fields(TrainingConfig), *leaf_fields(CurriculumStage, STAGE)]
    return {path for path, _ in fields}


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    """Read off the files, so that the check holds also where pytest runs a part of them."""
    return [one for path in sorted(TESTS.rglob("test_*.py")) for one in marked_in(path)]


def marked_in(path: Path) -> Iterator[Shown]:
    text = path.read_text(encoding="utf-8")
    if MARKER not in text or path == Path(__file__):
        return
    module = ast.parse(text)
    tests = [
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    decorators = {node.name: node.decorator_list for node in tests}
    for node in tests:
        node.decorator_list = [mark for mark in node.decorator_list if not is_ours(mark)]
    without_marks = ast.unparse(module)
    for name, marks in decorators.items():
        slow = any(ast.unparse(mark) == "pytest.mark.slow" for mark in marks)
        for mark in filter(is_ours, marks):
            for key in map(ast.literal_eval, mark.args):
                own_name = key.rpartition(".")[2]
                named = re.search(rf"\b{own_name}\b", without_marks) is not None
                yield Shown(key, f"{path.relative_to(TESTS)}::{name}", not slow, named)


def is_ours(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == MARKER


def test_every_key_has_a_test_of_its_effect(keys, shown) -> None:
    missing = keys - {one.key for one in shown if one.by_default}
    assert not missing, f"no test shows what these keys change: {', '.join(sorted(missing))}"


def test_only_keys_that_exist_are_shown(keys, shown) -> None:
    assert [one for one in shown if one.key not in keys] == []


def test_a_test_that_shows_a_key_names_it(shown) -> None:
    assert [one for one in shown if not one.named] == []
