"""Who waits for an entry to be compiled is told so."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ppo_scheduler.compiled import _Announcement, compiled, compiled_entry


class Compilation:
    """What numba says when it begins to compile a function."""

    def __init__(self, door: Callable[..., object]) -> None:
        def function(number: int) -> int:
            return number

        self.data = {"dispatcher": door(function)}


def test_it_is_said_once_and_of_entries_only(caplog):
    caplog.set_level(logging.INFO, logger="ppo")
    announcement = _Announcement()
    announcement.on_start(Compilation(compiled))
    assert caplog.messages == []
    for _ in range(2):
        announcement.on_start(Compilation(compiled_entry))
    assert caplog.messages == ["compiling for this machine: 1 to 3 minutes, only once"]
