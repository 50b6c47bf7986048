"""Which trace formats there are: the modules of ``vidur_ext.workload.traces`` that have a ``NAME``.

They are found in their folder, none is imported by name, so one more file is one more format. The
config asks here for the names it allows, and so does not depend on workloads, which depend on it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

_PACKAGE = "vidur_ext.workload.traces"


def trace_formats() -> dict[str, Any]:
    """Return the formats by name: modules as ``workload.traces.rows.TraceFormat`` describes."""
    folder = importlib.import_module(_PACKAGE).__path__
    modules = [
        importlib.import_module(f"{_PACKAGE}.{found.name}")
        for found in pkgutil.iter_modules(folder)
    ]
    formats = [module for module in modules if hasattr(module, "NAME")]
    by_name = {module.NAME: module for module in formats}
    assert len(by_name) == len(formats), "two trace formats have one name"
    return by_name
