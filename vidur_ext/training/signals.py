"""Signals: they are noted when they come, and obeyed between two decisions."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ppo_scheduler.errors import Interrupted
from vidur_ext.processes import STOPS, catching


class ChunkFinished(BaseException):
    """Training stops here to be resumed: the requests of this chunk are routed and saved."""


class SignalRequests:
    """Remembers what signals asked for: SIGINT, SIGTERM and SIGHUP to stop, SIGUSR1 to save.

    A Ctrl-C after the first request to stop ends the training where it is: somebody at the
    terminal does not want to wait. A repeated SIGTERM changes nothing, since nobody need mean
    anything by it: the kernel may send one for each thread of a parent that dies.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self._save = False

    def take_save(self) -> bool:
        """Return whether a save was asked for since the last call."""
        asked, self._save = self._save, False
        return asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside the block."""
        stops = dict.fromkeys(STOPS, self._note_stop)
        with catching({**stops, signal.SIGUSR1: self._note_save}):
            yield

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop is None:
            self.stop = number
        elif number == signal.SIGINT:
            raise Interrupted(number, "not waiting for a save; earlier checkpoints are intact")

    def _note_save(self, number: int, frame: FrameType | None) -> None:
        self._save = True
