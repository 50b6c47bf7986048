"""How every program of this project begins and ends, whatever its streams and its system do."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from rich.console import Console

from ppo_scheduler.errors import Interrupted, UserError
from vidur_ext.processes import STOPS, catching


def exit_status(program: Callable[[], None]) -> int:
    """Run ``program``; return 0, 2 for what a user or the system caused, 128 + n for signal n.

    Anything else is a bug and keeps its traceback.
    """
    # Who is started from here must not import what lies in the folder the user stands in.
    os.environ["PYTHONSAFEPATH"] = "1"
    _prepare_streams()
    # It asks a training to save; where none listens yet, or any more, it must not kill.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    heard = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    try:
        with catching(dict.fromkeys(heard, _stop)):
            program()
            sys.stdout.flush()
    except UserError as error:
        _print_error(str(error))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.number
    except EOFError:
        print("the input ended before the question was answered; nothing done", file=sys.stderr)
    except (OSError, MemoryError, RuntimeError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        if isinstance(error, OSError) and error.filename == _STDOUT:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the rest is not tried again at the end
            if error.errno == errno.EPIPE:  # whoever read it has seen enough, as with ``head``
                return 128 + signal.SIGPIPE
        _print_error(refusal)
    else:
        return 0
    return 2


def _stop(number: int, frame: FrameType | None) -> None:
    # The kernel may send one for each thread of a parent that dies: they do not disturb the end.
    for repeated in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(repeated, signal.SIG_IGN)
    raise Interrupted(number)


_STDOUT = "standard output"
_WAYS_OUT = {
    errno.ENOSPC: "free some space there, then start again",
    errno.EDQUOT: "free some of your quota, then start again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), then start again",
    errno.EACCES: "give yourself the rights, or choose another place",
    errno.EPERM: "give yourself the rights, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EMFILE: "raise the limit on open files (ulimit -n), then start again",
    errno.ENAMETOOLONG: "choose a shorter path",
}
_NO_MEMORY = "memory ran out; end other programs, raise the limit, or ask for less at once"
_SHORT_OF = {
    "can't start new thread": "no more threads or processes can be started (ulimit -u)",
    "allocate memory": _NO_MEMORY,
    "not enough memory": _NO_MEMORY,
}
"""What libraries say when the system refuses them, in an error that names no cause."""


def _refusal(error: OSError | MemoryError | RuntimeError) -> str | None:
    """Return in a sentence what the system refused; None if the error is another one."""
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    if isinstance(error, RuntimeError):
        return next((text for said, text in _SHORT_OF.items() if said in str(error)), None)
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    way_out = _WAYS_OUT.get(error.errno or 0)
    return f"{place}{error.strerror or error}" + (f"; {way_out}" if way_out else "")


def _prepare_streams() -> None:
    """Let there be three streams that take any text, whatever is closed, full or not UTF-8.

    Those that somebody has put in the place of the system's stay as they are.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: what is opened next takes its number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            stream = os.fdopen(number, "w" if number else "r", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if sys.stdin is sys.__stdin__:
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text_on(_Output(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text_on(_Messages(2, "w", closefd=False), sys.stderr)


def _text_on(raw: io.FileIO, like: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding,
        errors="backslashreplace",
        line_buffering=like.line_buffering,
    )


class _Output(io.FileIO):
    """Standard output; its errors say that they are its."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = _STDOUT
            raise


class _Messages(io.FileIO):
    """Standard error; what nobody can read any more is no reason to stop."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def _print_error(text: str) -> None:
    # Rich knows when colour is unwanted: no terminal, NO_COLOR, TERM=dumb.
    console = Console(stderr=True)
    console.print(
        f"error: {text}", style="red", markup=False, highlight=False, emoji=False, soft_wrap=True
    )
