"""The errors a user can cause."""

from __future__ import annotations

import signal


def printable(text: str) -> str:
    """Return a text that no terminal takes for a command: names in files may hold escapes.

    Lines stay lines; whatever else cannot be printed is written out as in Python.
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class UserError(ValueError):
    """What cannot be done as asked: the text says what, where, and what to do.

    Command line entry points print it in one line and exit with status 2.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class IncompatibleState(UserError):
    """A saved state that is whole but was made for another network, observation or seed."""


class Interrupted(BaseException):
    """A signal asked to stop; ``outcome`` says what is kept, if there was anything.

    Exit status is 128 + number.
    """

    def __init__(self, number: int, outcome: str = "") -> None:
        self.number = number
        self.outcome = outcome
        kept = f"; {outcome}" if outcome else " before anything was left to save"
        super().__init__(f"stopped by {signal.Signals(number).name}{kept}")

    def saying(self, outcome: str) -> Interrupted:
        """Return the same with what is kept, told by who knows it."""
        return Interrupted(self.number, outcome)
