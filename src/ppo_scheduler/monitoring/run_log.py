"""The run's log: a file for good, the process's one console for now."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler

from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.files import appending, share


@cache
def terminal() -> Console:
    """Return the console on standard error.

    Log and progress bar must share it: a console keeps what it prints itself above its bar, and
    would draw the bar over what another one printed.
    """
    return Console(stderr=True)


LOGGER = "ppo"

FILE_ONLY = {"file_only": True}
"""``extra`` of a line that the terminal shows in another way."""


@contextmanager
def run_log(path: Path, level: str, *, quiet: bool = False) -> Iterator[None]:
    """Send the logger ``ppo`` to ``path`` and to the terminal (warnings only if quiet).

    The file is UTF-8 whatever the locale. Inside another ``run_log`` this changes nothing: a
    training that is part of a larger job writes into that job's log.

    Raises:
        UserError: the file cannot be written.
    """
    logger = logging.getLogger(LOGGER)
    if any(isinstance(handler, _LogFile) for handler in logger.handlers):
        yield
        return
    handlers = [_LogFile(path), _terminal_handler(logging.WARNING if quiet else level.upper())]
    logger.setLevel(level.upper())
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    except (UserError, Interrupted) as end:  # the terminal is told by who ends the program
        logger.error("ended: %s", end, extra=FILE_ONLY)
        raise
    except Exception:
        logger.exception("ended by an error", extra=FILE_ONLY)
        raise
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True


class _LogFile(logging.Handler):
    """The file; lines that the disk refuses are kept, and written when it takes some again."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            self._file = self._open()
        except OSError as error:
            raise UserError(f"{path}: cannot write the log ({error.strerror})") from error
        self._waiting = b""
        self._refused = False
        self.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        )

    def _open(self) -> io.FileIO:
        # Unbuffered: what the disk refuses is in our hands, and not half in a buffer.
        file = appending(self._path)
        # Shared among the processes of a run, and gone with the last of them, however it ends:
        # that is how others see that the run is alive.
        share(file)
        return file

    def emit(self, record: logging.LogRecord) -> None:
        # A path may hold bytes that are no text: they are logged escaped.
        self._waiting += f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        try:
            self._write()
        except OSError as error:
            if not self._refused:
                self._refused = True
                logging.getLogger(LOGGER).warning(
                    "%s: the log cannot be written (%s); its lines wait until it can",
                    self._path, error.strerror,
                )  # fmt: skip
        else:
            self._refused = False

    def _write(self) -> None:
        if not os.path.lexists(self._path):  # removed or moved away: the rest is not lost too
            self._path.parent.mkdir(parents=True, exist_ok=True)
            gone, self._file = self._file, self._open()
            gone.close()
        while self._waiting:  # a disk that becomes full takes a part
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def close(self) -> None:
        with suppress(OSError):
            self._write()
        with suppress(OSError):
            self._file.close()
        super().close()


def _terminal_handler(level: int | str) -> logging.Handler:
    handler: logging.Handler
    if terminal().is_terminal:
        handler = RichHandler(
            console=terminal(),
            show_path=False,
            show_level=False,
            log_time_format="%H:%M:%S",
            omit_repeated_times=False,
            highlighter=NullHighlighter(),
        )
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.setLevel(level)
    handler.addFilter(lambda record: not hasattr(record, "file_only"))
    return handler
