"""Machine code is kept under a digest of all that makes it: sources, constants and options."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from ppo_scheduler import compiled

SOURCES = {
    "__init__": "",
    "constants": "FACTOR = 2\nUNUSED = 3\n",
    "options": "OFFSET = 100\nUNUSED = 4\n",
    "layout": """
        from __future__ import annotations
        from typing import NamedTuple
        from package.parts import Part
        class State(NamedTuple):
            part: Part
            value: int
    """,
    "parts": """
        from typing import NamedTuple
        class Part(NamedTuple):
            left: int
            right: int
    """,
    "deep": """
        from ppo_scheduler.compiled import compiled
        from package import options
        @compiled
        def shifted(x):
            return x + options.OFFSET
    """,
    "helpers": """
        from ppo_scheduler.compiled import compiled
        from package.constants import FACTOR
        from package.deep import shifted
        @compiled
        def scaled(x):
            return FACTOR * shifted(x)
    """,
    "stranger": "def not_used():\n    return 1\n",
    "entry": """
        from __future__ import annotations
        import package.stranger
        from ppo_scheduler.compiled import compiled_entry
        from package.helpers import scaled
        from package.layout import State
        @compiled_entry
        def run(state: State):
            return scaled(state.value)
    """,
}


class Package:
    """A package of compiled functions, below a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, source in SOURCES.items():
            self.write(name, source)

    def write(self, name: str, source: str) -> None:
        lines = source.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        text = "".join(f"{line[indent:]}\n" for line in lines)
        path = self.root / "package" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        path = self.root / "package" / f"{name}.py"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def digest(self, *first: str) -> str:
        """Import the package anew, some modules before the entry; return the name of the entry."""
        for name in [n for n in sys.modules if n.partition(".")[0] == "package"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        for name in first:
            importlib.import_module(f"package.{name}")
        entry = importlib.import_module("package.entry").run
        return str(entry.py_func.__qualname__)


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # sources change within one second
    yield Package(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == "package"]:
        del sys.modules[name]


CHANGES = {
    "the entry itself": ("entry", "scaled(state.value)", "scaled(state.value) + 0"),
    "a function that the entry calls": ("helpers", "FACTOR * shifted(x)", "shifted(x) * FACTOR"),
    "a function that such a one calls": ("deep", "x + options", "1 * x + options"),
    "a constant of another module": ("constants", "FACTOR = 2", "FACTOR = 5"),
    "a constant by its module": ("options", "OFFSET = 100", "OFFSET = 50"),
    "the fields of an argument": ("layout", "value: int", "value: int\n    more: int"),
    "the fields of such a field": ("parts", "left: int", "first: int"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_what_it_is_made_of_changes_its_name(package, change):
    before = package.digest()
    assert package.digest() == before
    package.change(*change)
    assert package.digest() != before


@pytest.mark.parametrize(
    "option", ['"_nrt": True', '"_nrt": False, "fastmath": True'], ids=["changed", "added"]
)
@pytest.mark.parametrize("of", ["entry", "helpers"])
def test_an_option_of_the_compiler_changes_its_name(package, monkeypatch, option, of):
    before = package.digest()
    name = {"entry": "compiled_entry", "helpers": "compiled"}[of]
    package.write("wrapping", f"""
        import ppo_scheduler.compiled as original
        options = {{{option}}}
        def {name}(function):
            usual = original._OPTIONS
            original._OPTIONS = options
            try:
                return original.{name}(function)
            finally:
                original._OPTIONS = usual
    """)  # fmt: skip
    package.change(of, "from ppo_scheduler.compiled import", "from package.wrapping import")
    changed = package.digest()
    package.change("wrapping", option, '"_nrt": False')
    usual = package.digest()
    assert len({before, changed, usual}) == 3, "the file changed, and then the option alone"


@pytest.mark.parametrize("decorator", [compiled.compiled, compiled.compiled_apart])
def test_python_may_call_a_part_before_and_after_compiled_code_does(decorator):
    @decorator
    def doubled(x):
        return x + x

    @compiled.compiled_entry
    def doubled_twice(x):
        return doubled(doubled(x))

    assert doubled("ab") == "abab", "its source"
    assert doubled_twice(3) == 12
    assert doubled(3) == 6


def test_what_it_is_not_made_of_does_not_change_its_name(package):
    before = package.digest()
    package.change("constants", "UNUSED = 3", "UNUSED = 30")
    package.change("stranger", "return 1", "return 2")
    assert package.digest() == before


@pytest.mark.parametrize("first", [["stranger", "parts"], ["deep"], ["layout", "constants"]])
def test_its_name_does_not_depend_on_what_was_imported_before(package, first):
    assert package.digest(*first) == package.digest()


RUN = """
from package.entry import run
from package.layout import State
from package.parts import Part
result = run(State(Part(0, 0), 1))
print(result, sum(run.stats.cache_hits.values()))
"""


def test_changed_sources_are_compiled_anew_and_others_are_not(package):
    def run() -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            env={**os.environ, "PYTHONPATH": str(package.root)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [int(word) for word in done.stdout.split()]

    assert run() == [2 * 101, 0]
    assert run() == [2 * 101, 1], "from the cache"
    package.change("constants", "FACTOR = 2", "FACTOR = 7")
    assert run() == [7 * 101, 0]


@pytest.fixture
def run_anew(package, caplog):
    """Import the package anew and run its entry, as a new process does.

    Return the result, how often the cache was hit, and what was said.
    """

    def run() -> tuple[int, int, list[str]]:
        compiled._say_once.cache_clear()
        caplog.clear()
        package.digest()
        state, part, entry = (
            getattr(sys.modules[f"package.{module}"], name)
            for module, name in (("layout", "State"), ("parts", "Part"), ("entry", "run"))
        )
        result = entry(state(part(0, 0), 1))
        return result, sum(entry.stats.cache_hits.values()), list(caplog.messages)

    return run


def test_without_a_place_for_machine_code_it_is_compiled_each_time(package, run_anew, monkeypatch):
    (package.root / "package" / "__pycache__").write_text("a file")
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", "/dev/null/x")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/x")
    for _ in range(2):
        result, hits, [said] = run_anew()
        assert (result, hits) == (2 * 101, 0)
        assert "machine code cannot be kept (cannot cache function" in said
        assert "NUMBA_CACHE_DIR" in said


def test_a_full_disk_keeps_no_machine_code_and_ends_nothing(run_anew):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        result, hits, [said] = run_anew()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (result, hits) == (2 * 101, 0)
    assert "machine code cannot be kept ([Errno 27] File too large)" in said
    assert run_anew() == (2 * 101, 0, [])


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda content: content[:20], lambda content: b"\0" * 500])
def test_damaged_machine_code_is_made_anew(package, run_anew, kind, damage):
    run_anew()
    [file] = (package.root / "package" / "__pycache__").glob(f"*.{kind}")
    file.write_bytes(damage(file.read_bytes()))
    result, hits, [said] = run_anew()
    assert (result, hits) == (2 * 101, 0)
    assert "kept machine code cannot be read" in said
    assert run_anew() == (2 * 101, 1, [])


ENTRIES = """
import json, re, sys
for name in sys.argv[1:]:
    __import__(name)
import vidur_ext.engine.environments, vidur_ext.vidur.plugin
from numba.core.dispatcher import Dispatcher
from ppo_scheduler.compiled import _OPTIONS, sources_digest
found = {}
for module in [m for n, m in sys.modules.items() if n.startswith("vidur_ext.")]:
    for value in vars(module).values():
        name = isinstance(value, Dispatcher) and value.py_func.__qualname__
        if name and re.search("_[0-9a-f]{12}$", name):
            name = f"{value.py_func.__module__}.{name[:-13]}"
            digest = value.py_func.__qualname__[-12:]
            found[name] = [digest, sources_digest(value.py_func, _OPTIONS)]
print(json.dumps(found))
"""


def entries(*first: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", ENTRIES, *first], check=True, capture_output=True, text=True
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_the_engine_is_named_alike_whatever_comes_first_and_misses_nothing_defined_later():
    usual = entries()
    assert "vidur_ext.engine.step.step" in usual
    assert entries("vidur_ext.vidur.plugin", "vidur_ext.routing.rewards") == usual
    for name, (at_import, afterwards) in usual.items():
        assert at_import == afterwards, f"{name} uses what is defined below it"
