"""The run's log: a file for good, the process's one console for now."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import share


@cache
def terminal() -> Console:
    """Return the console on standard error.

    Log and progress bar must share it: a console keeps what it prints itself above its bar, and
    would draw the bar over what another one printed.
    """
    return Console(stderr=True)


LOGGER = "ppo"


@contextmanager
def run_log(path: Path, level: str, *, quiet: bool = False) -> Iterator[None]:
    """Send the logger ``ppo`` to ``path`` and to the terminal (warnings only if quiet).

    The file is UTF-8 whatever the locale. Inside another ``run_log`` this changes nothing: a
    training that is part of a larger job writes into that job's log.

    Raises:
        UserError: the file cannot be written.
    """
    logger = logging.getLogger(LOGGER)
    if any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        yield
        return
    handlers = [_file_handler(path), _terminal_handler(logging.WARNING if quiet else level.upper())]
    logger.setLevel(level.upper())
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True


def _file_handler(path: Path) -> logging.Handler:
    try:
        # A path may hold bytes that are no text: they are logged escaped.
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{path}: cannot write the log ({error.strerror})") from error
    # Shared among the processes of a run, and gone with the last of them, however it ends: that
    # is how others see that the run is alive.
    assert handler.stream is not None
    share(handler.stream)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    )
    return handler


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
    return handler
