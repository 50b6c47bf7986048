"""What a preset draws, and what else a module of ``workload.presets`` has."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from vidur_ext.workload.quantiles import Floats, Tokens


class DrawnSessions(NamedTuple):
    """Sessions of R turns in all, one session after the other.

    Attributes:
        turns: int64 [M], turns of each session, at least 1; R together.
        opening: float64 [M], tokens with which each prompt of the session begins.
        text: float64 [R], tokens that a turn adds.
        answer: float64 [R], tokens of the answer to it.
        wait_s: float64 [R], seconds before it: from the completion of the previous answer if the
            preset converses, else from the previous arrival. Those of first turns do not count.
    """

    turns: Tokens
    opening: Floats
    text: Floats
    answer: Floats
    wait_s: Floats


class Preset(Protocol):
    """What a module of ``workload.presets`` has.

    Attributes:
        SHARED_TOKENS: tokens with which every prompt of all sessions begins; 0: none.
        CONVERSES: prompts contain the turns before and their answers, and wait for the last of
            them. If not, the turns of a session share its opening and nothing else, and arrive at
            times of their own: to a server each is a session.
        LONGEST_S: seconds from a session's first turn to its last, nominally; waits of longer
            sessions are shortened in proportion.
    """

    SHARED_TOKENS: int
    CONVERSES: bool
    LONGEST_S: float

    def draw(self, rng: np.random.Generator, turns: int) -> DrawnSessions:
        """Return sessions of exactly ``turns`` turns together; the last one may be cut short."""


def cut_at(turns: Tokens, total: int) -> Tokens:
    """Return the first of some sessions, ``total`` turns together; the last one may be cut."""
    ends = np.cumsum(turns)
    count = int(np.searchsorted(ends, total)) + 1
    first = turns[:count].copy()
    first[-1] -= ends[count - 1] - total
    return first
