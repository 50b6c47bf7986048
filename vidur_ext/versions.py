"""Versions of what a result depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

PROGRAM = "ppo-scheduler"


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that produce the numbers."""
    packages = ("torch", "numpy", "vidur", PROGRAM)
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def version_line() -> str:
    """Return the program's version and those of what its numbers depend on, in one line."""
    versions = package_versions()
    others = ", ".join(f"{name} {text}" for name, text in versions.items() if name != PROGRAM)
    return f"{PROGRAM} {versions[PROGRAM]} ({others})"
