"""What a folder of plug-ins offers, read off its files: importing them would take seconds.

A plug-in is a module of the folder, called by its file's name.
"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path


def _modules(package: str) -> dict[str, Path]:
    spec = find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    assert folders, f"{package} is no package"
    files = (file for folder in folders for file in _sources(folder))
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}


def _sources(folder: str) -> list[Path]:
    return [file for file in Path(folder).glob("*.py") if not file.stem.startswith("_")]


def module_names(package: str) -> tuple[str, ...]:
    """Return the names of a package's modules in alphabetical order, without ``_private`` ones."""
    return tuple(_modules(package))


def data_files(package: str, folder: str) -> dict[str, Path]:
    """Return the JSON files below a folder of a package, by their names: paths without suffix."""
    spec = find_spec(package)
    places = [] if spec is None else spec.submodule_search_locations or []
    assert places, f"{package} is no package"
    tops = [Path(place, folder) for place in places]
    files = (
        (str(file.relative_to(top))[:-5], file) for top in tops for file in top.rglob("*.json")
    )
    return dict(sorted(files))


def marked(package: str, mark: str) -> tuple[str, ...]:
    """Return the names of the modules that say ``mark = True``."""
    return tuple(name for name, file in _modules(package).items() if _says(file, mark))


def _says(file: Path, mark: str) -> bool:
    return any(
        isinstance(statement, ast.Assign)
        and [ast.unparse(target) for target in statement.targets] == [mark]
        and ast.unparse(statement.value) == "True"
        for statement in ast.parse(file.read_text(encoding="utf-8")).body
    )
