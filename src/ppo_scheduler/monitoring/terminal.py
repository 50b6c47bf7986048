"""The one console of a process."""

from __future__ import annotations

from functools import cache

from rich.console import Console


@cache
def terminal() -> Console:
    """Return the console on standard error.

    Log and progress bar must share it: a console keeps what it prints itself above its bar, and
    would draw the bar over what another one printed.
    """
    return Console(stderr=True)
