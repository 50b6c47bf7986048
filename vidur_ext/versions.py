"""Versions of what a result depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that produce the numbers."""
    packages = ("torch", "numpy", "vidur", "ppo-scheduler")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
