"""numba behind a typed door: functions compiled inline, and entries cached on disk."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from inspect import get_annotations
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar, cast
from warnings import filterwarnings

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaExperimentalFeatureWarning
from numba.core.event import Event, Listener, register
from numba.core.registry import CPUDispatcher
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

_LOG = logging.getLogger("ppo")

# What ``literal_unroll`` is to write out, numba first looks at as if it called through pointers.
filterwarnings("ignore", "First-class function type", NumbaExperimentalFeatureWarning)

Function = TypeVar("Function", bound=Callable[..., Any])


# Compiled code allocates nothing: without numba's reference counts, one atomic operation for every
# array that is passed on, it is twelve times as fast.
_OPTIONS: dict[str, Any] = {"_nrt": False, "no_cfunc_wrapper": True}
# A division by zero is no error in loops that are to be vectorized: raising one would be a branch.
# A product and the sum it goes into are rounded once.
_OF_VECTORS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract": True}}


class _Part(CPUDispatcher):
    """A function that compiled ones call. From Python, its source runs.

    A door for Python contains all that is behind it, optimized once more: without one, the engine
    compiles in half the time. numba would then let Python call address 0.
    """

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)


def _part(function: Function, **options: Any) -> Function:
    options |= {**_OPTIONS, "no_cpython_wrapper": True}
    part = numba.njit(**options)(function)
    if isinstance(part, CPUDispatcher):  # else numba is switched off
        part.__class__ = _Part
    return cast(Function, part)


def compiled(function: Function) -> Function:
    """Compile a function that only other compiled functions call, into each of its callers.

    A call would pass every array as seven numbers or more, a whole ``Simulation`` as some 180:
    without calls the engine is more than three times as fast. Since every call in the source is a
    copy of the machine code, a large function is better called from one place.
    """
    return _part(function, forceinline=True)


def compiled_apart(function: Function) -> Function:
    """Compile a function that other compiled functions call, and that stays one.

    For what is large and called once per decision at most, where a copy for every call would cost
    much to compile: passing a ``Simulation`` takes some hundred nanoseconds.
    """
    # Left out, this option is the caller's: numba would put the function into it after all.
    return _part(function, forceinline=False)


def vectorized(function: Function) -> Function:
    """Compile loops over arrays into the vector instructions of this machine.

    For functions that other compiled functions call. The order of sums stays as it is written.
    """
    return _part(function, **_OF_VECTORS)


def vectorized_inline(function: Function) -> Function:
    """Compile a formula of single numbers into the vectorized loops that call it."""
    return _part(function, forceinline=True, **_OF_VECTORS)


def vectorized_sums(function: Function) -> Function:
    """Compile loops that each add up an array; a machine's vectors fix in which order."""
    return _part(function, **_OF_VECTORS | {"fastmath": {"contract": True, "reassoc": True}})


def tuple_of(length: int) -> Callable[[Any], Any]:
    """Return a function, for compiled code too, that makes a tuple of an array [length]."""

    def as_tuple(numbers: Any) -> Any:
        return tuple(numbers)

    # Compiled code must know how long a tuple is before it sees any array.
    fixed: Any = to_fixed_tuple
    overload(as_tuple)(lambda numbers: lambda numbers: fixed(numbers, length))
    return as_tuple


def compiled_entry(function: Function) -> Function:
    """Compile a function that Python calls; its machine code is kept in ``__pycache__``.

    An entry contains all compiled functions it calls and the constants they use, but numba looks
    for changes in the entry's own file only. So the name under which it is kept ends in a digest
    of all of them; they must be defined above it, or imported.
    """
    function.__qualname__ += f"_{sources_digest(function, _OPTIONS)}"
    entry = numba.njit(**_OPTIONS)(function)
    try:
        entry._cache = _MachineCode(function)  # as its ``enable_caching`` does
    except (RuntimeError, OSError) as error:
        _say_once(f"machine code cannot be kept ({error})")
    return cast(Function, entry)


class _MachineCode(FunctionCache):
    """numba's cache, which the disk may refuse and damage."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # numba reads pickles: damaged ones can raise anything
            _say_once(f"kept machine code cannot be read ({type(error).__name__}: {error})")
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _say_once(f"machine code cannot be kept ({error})")


@cache
def _say_once(what: str) -> None:
    _LOG.warning(
        "%s: compiling takes 1 to 3 minutes each time. NUMBA_CACHE_DIR names another folder",
        what,
    )


def sources_digest(function: Callable[..., Any], options: Mapping[str, Any]) -> str:
    """Return a digest of all that makes the machine code of an entry.

    That is: its file and those of all compiled functions it calls, directly or not, and of the
    modules and classes they refer to; the values of the constants they use; and the options each
    is compiled with. It depends on nothing else, such as what was imported before.
    """
    sources = _Sources()
    sources.add_function(function, options)
    return hashlib.sha256("\n".join(sorted(sources.found)).encode()).hexdigest()[:12]


class _Sources:
    """Follows names from function to function, as numba does; ``found`` describes what it met."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._followed: set[object] = set()

    def add_function(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        if function in self._followed:
            return
        self._followed.add(function)
        where = f"{function.__module__}.{function.__code__.co_name}"
        self.found.add(f"{where} is compiled with {sorted(options.items())}")
        self._add_file(function.__module__)
        names = set(_names(function.__code__))
        free = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        known = {**function.__globals__, **{name: cell.cell_contents for name, cell in free}}
        for name in names & known.keys():
            self._add_value(f"{where}: {name}", known[name])
            if isinstance(known[name], ModuleType):
                self._add_attributes(known[name], names)
        self._add_value(f"{where}: defaults", function.__defaults__ or ())
        self._add_types(function.__annotations__, function.__globals__)

    def _add_attributes(self, module: ModuleType, names: set[str]) -> None:
        """Follow what is taken from a module: it may have it from another one."""
        for name in names & vars(module).keys():
            value = vars(module)[name]
            if not isinstance(value, ModuleType):  # who imported a part of a package decides that
                self._add_value(f"{module.__name__}.{name}", value)

    def _add_value(self, where: str, value: object) -> None:
        if isinstance(value, Dispatcher):
            self.add_function(value.py_func, value.targetoptions)
        elif isinstance(value, ModuleType):
            self._add_file(value.__name__)
        elif isinstance(value, type):
            self._add_type(value)
        elif isinstance(value, np.ndarray):
            self.found.add(f"{where} = {value.dtype}{value.shape} {value.tobytes().hex()}")
        elif isinstance(value, tuple):
            for index, part in enumerate(value):
                self._add_value(f"{where}[{index}]", part)
        elif isinstance(value, _CONSTANTS):
            self.found.add(f"{where} = {type(value).__qualname__} {value!r}")
        # What else compiled code can name are functions that numba itself knows.

    def _add_type(self, kind: type) -> None:
        """Follow a class: compiled code knows the fields of a tuple by their positions."""
        if kind in self._followed:
            return
        self._followed.add(kind)
        self._add_file(kind.__module__)
        for name, member in getattr(kind, "__members__", {}).items():
            self.found.add(f"{kind.__module__}.{kind.__qualname__}.{name} = {member.value!r}")
        self._add_types(get_annotations(kind), vars(sys.modules[kind.__module__]))

    def _add_types(self, annotations: Mapping[str, object], known: Mapping[str, object]) -> None:
        for annotation in annotations.values():
            named = _NAME.findall(annotation if isinstance(annotation, str) else repr(annotation))
            for value in (annotation, *(known.get(name) for name in named)):
                if isinstance(value, type):
                    self._add_type(value)

    def _add_file(self, module: str) -> None:
        file = getattr(sys.modules[module], "__file__", None)
        if file is not None and module not in self._followed:
            self._followed.add(module)
            content = Path(file).read_bytes()
            self.found.add(f"{module} holds {hashlib.sha256(content).hexdigest()}")


_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), np.generic)
_NAME = re.compile(r"\w+")


def _names(code: CodeType) -> Iterator[str]:
    """Yield the globals, attributes and outer variables that a function uses, lambdas included."""
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class _Announcement(Listener):
    """Says why nothing happens for a while, the first time that there is no cached code."""

    def __init__(self) -> None:
        self._made = False

    def on_start(self, event: Event) -> None:
        is_entry = isinstance(event.data["dispatcher"]._cache, _MachineCode)
        if is_entry and not self._made:
            self._made = True
            _LOG.info("compiling for this machine: 1 to 3 minutes, only once")

    def on_end(self, event: Event) -> None:
        pass


register("numba:compile", _Announcement())
