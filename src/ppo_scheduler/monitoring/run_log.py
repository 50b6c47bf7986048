"""The run's log: a file for good, the terminal for now."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from ppo_scheduler.errors import UserError

LOGGER = "ppo"


def open_run_log(path: Path, level: str, quiet: bool) -> logging.Logger:
    """Send the logger ``ppo`` to ``path`` and to the terminal (warnings only if quiet).

    The file is UTF-8 whatever the locale. Opening again replaces the handlers.
    """
    close_run_log()
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        file = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot write the log ({error.strerror})") from error
    file.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    )
    terminal = RichHandler(
        console=Console(stderr=True),
        show_path=False,
        show_level=False,
        log_time_format="%H:%M:%S",
        omit_repeated_times=False,
        highlighter=None,
    )
    terminal.setLevel(logging.WARNING if quiet else level.upper())
    logger.addHandler(file)
    logger.addHandler(terminal)
    return logger


def log_is_open() -> bool:
    """Return whether ``open_run_log`` is in force."""
    return bool(logging.getLogger(LOGGER).handlers)


def close_run_log() -> None:
    """Close the handlers of ``open_run_log``."""
    logger = logging.getLogger(LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
