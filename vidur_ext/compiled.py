"""numba behind a typed door: functions compiled inline, and entries cached on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.event import Event, Listener, register
from numba.np.unsafe.ndarray import to_fixed_tuple

_LOG = logging.getLogger("ppo")

Function = TypeVar("Function", bound=Callable[..., Any])


as_tuple: Any = to_fixed_tuple
"""Compiled: ``as_tuple(array, length)`` returns an array's numbers; the length is a constant."""


# Compiled code allocates nothing: without numba's reference counts, one atomic operation for every
# array that is passed on, it is twelve times as fast.
_OPTIONS: dict[str, Any] = {"_nrt": False}


def compiled(function: Function) -> Function:
    """Compile a function that only other compiled functions call, into each of its callers.

    A call would pass every array as seven numbers or more, a whole ``Simulation`` as some 180:
    without calls the engine is more than three times as fast. Since every call in the source is a
    copy of the machine code, a large function is better called from one place.
    """
    return cast(Function, numba.njit(forceinline=True, **_OPTIONS)(function))


def compiled_entry(function: Function) -> Function:
    """Compile a function that Python calls; its machine code is kept in ``__pycache__``.

    An entry contains all compiled functions it calls and the constants they use, but numba looks
    for changes in the entry's own file only. So the name under which it is kept ends in a digest
    of all their files.
    """
    function.__qualname__ += f"_{_sources_digest()}"
    return cast(Function, numba.njit(cache=True, **_OPTIONS)(function))


@lru_cache(maxsize=1)
def _sources_digest() -> str:
    content = hashlib.sha256()
    package = Path(__file__).parent
    folders = (package / "engine", package / "routing")
    ground = (Path(__file__), package / "columns.py")
    sources = (file for folder in folders for file in sorted(folder.rglob("*.py")))
    for source in (*sources, *ground):
        content.update(source.read_bytes())
    return content.hexdigest()[:12]


class _Announcement(Listener):
    """Says why nothing happens for a while, the first time that there is no cached code."""

    def __init__(self) -> None:
        self._made = False

    def on_start(self, event: Event) -> None:
        module = str(event.data["dispatcher"].py_func.__module__)
        if module.startswith("vidur_ext.engine") and not self._made:
            self._made = True
            _LOG.info("compiling the simulation engine for this machine: up to a minute, only once")

    def on_end(self, event: Event) -> None:
        pass


register("numba:compile", _Announcement())
