"""Stopping at a consistent point: signals are noted, and obeyed between two decisions."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Training was stopped by a signal after saving its state. Exit status is 128 + number."""

    def __init__(self, number: int, checkpoint: str | None) -> None:
        self.number = number
        self.checkpoint = checkpoint
        super().__init__(signal.Signals(number).name)


class ChunkFinished(BaseException):
    """Training stops here to be resumed: the requests of this chunk are routed and saved."""


class StopRequest:
    """Remembers the first signal. A second Ctrl-C falls through to Python's own handling."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Catch SIGINT and SIGTERM inside the block."""
        previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
