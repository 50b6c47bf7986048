"""Who waits for the engine to be compiled is told so."""

from __future__ import annotations

import logging

from vidur_ext.compiled import _Announcement, compiled


class Compilation:
    """What numba says when it begins to compile a function."""

    def __init__(self, module: str) -> None:
        def function(number: int) -> int:
            return number

        function.__module__ = module
        self.data = {"dispatcher": compiled(function)}


def test_it_is_said_once_and_of_the_engine_only(caplog):
    caplog.set_level(logging.INFO, logger="ppo")
    announcement = _Announcement()
    announcement.on_start(Compilation("vidur_ext.routing.rewards"))
    assert caplog.messages == []
    for _ in range(2):
        announcement.on_start(Compilation("vidur_ext.engine.step"))
    assert caplog.messages == [
        "compiling the simulation engine for this machine: 1 to 3 minutes, only once"
    ]
