"""Which requests are turns of one session, and which wait for the answer before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.workload.frozen_columns import freeze_columns

Ints = NDArray[np.int64]

NOMINAL_TOKEN_S = 0.03
"""How long a token of an answer takes in the nominal times of closed loops, which order them."""

NO_PREVIOUS = -1
"""In place of a previous turn: the request arrives at a time of its own."""


@dataclass(frozen=True, eq=False)
class Sessions:
    """The sessions of N requests; the columns are read-only copies.

    A turn with a previous one is part of a closed loop: it arrives ``think_s`` after the completion
    of that one, whenever this is.

    Attributes:
        session: int64 [N], id of each request's session, not negative.
        turn: int64 [N], number of the request in its session, from 0. A session that was begun
            before the table keeps its numbers.
        previous: int64 [N], row of the turn whose completion it waits for, always an earlier row of
            the session; -1: it arrives at its time. No two turns wait for one.
        think_s: float64 [N], seconds from that completion to its arrival; 0 where none is awaited.

    Raises:
        UserError: the columns do not describe sessions; the text names the first bad row.
    """

    session: Ints
    turn: Ints
    previous: Ints
    think_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        length = np.size(self.session)
        freeze_columns(self, ("session", "turn", "previous"), np.int64, length, "session")
        freeze_columns(self, ("think_s",), np.float64, length, "session")
        rows = np.arange(length)
        waits = self.waits
        awaited = self.previous[waits]
        twice = np.zeros(length, dtype=bool)
        twice[waits] = np.bincount(awaited, minlength=length)[awaited] > 1 if length else False
        self._check(self.session >= 0, "its session is negative")
        self._check(self.turn >= 0, "its turn is negative")
        self._check((self.previous >= NO_PREVIOUS) & (self.previous < rows), "it waits for no "
                    "earlier request")  # fmt: skip
        self._check(~waits | (self.session[self.previous] == self.session),
                    "it waits for a request of another session")  # fmt: skip
        self._check(~twice, "another request waits for the same one")
        thinks = np.isfinite(self.think_s) & (self.think_s >= 0.0)
        self._check(thinks, "its think time is no number of seconds")
        self._check(waits | (self.think_s == 0.0), "it has a think time and waits for nobody")

    def __len__(self) -> int:
        """Return the number of requests N."""
        return len(self.session)

    @property
    def waits(self) -> NDArray[np.bool_]:
        """Which requests [N] wait for a previous one."""
        return self.previous >= 0

    def window(self, start: int, count: int) -> Sessions:
        """Return rows [start, start + count); after the last row they begin again, as new sessions.

        A turn whose previous one is not in the window arrives at a time of its own.
        """
        index = np.arange(start, start + count)
        lap, row = np.divmod(index, len(self))
        previous = index - (row - self.previous[row]) - start
        waits = self.waits[row] & (previous >= 0)
        ids = 1 + int(self.session.max(initial=-1))
        return Sessions(
            self.session[row] + lap * ids,
            self.turn[row],
            np.where(waits, previous, NO_PREVIOUS),
            np.where(waits, self.think_s[row], 0.0),
        )

    def at_rate(self, scale: float) -> Sessions:
        """Return the same sessions ``scale`` times as fast, think times included."""
        return Sessions(self.session, self.turn, self.previous, self.think_s / scale)

    def _check(self, holds: NDArray[np.bool_], otherwise: str) -> None:
        wrong = np.flatnonzero(~holds)
        if len(wrong):
            raise UserError(f"request {wrong[0]} of the sessions: {otherwise}")
