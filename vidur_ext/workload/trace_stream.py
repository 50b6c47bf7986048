"""A recorded stream."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.stream import check_window, to_seconds, to_ticks


def held_out_count(requests: int, holdout_fraction: float) -> int:
    """Return how many requests at the end of a trace are held out."""
    return round(requests * holdout_fraction)


@dataclass(frozen=True, eq=False)
class TraceStream:
    """The requests of a table in their order; request 0 arrives at time 0.

    With ``repeat`` the stream has no end: after its last request the trace starts again, one mean
    gap later, for the recording does not say what came next. Texts and sessions are new ones then:
    nothing that was cached in one round is found in the next.

    Raises:
        UserError: the table is empty, or is to repeat without lasting any time.
    """

    table: RequestTable
    repeat: bool = False

    def __post_init__(self) -> None:
        if len(self.table) == 0:
            raise UserError("a request stream needs at least one request; the table is empty")
        if self.repeat and self._ticks[-1] == 0:
            raise UserError(
                "a trace whose requests all arrive at the same time cannot be repeated: its "
                "arrival rate is unknown; give a longer trace"
            )

    @property
    def num_requests(self) -> int | None:
        """How many requests there are; None when the trace repeats."""
        return None if self.repeat else len(self.table)

    def window(self, start: int, count: int) -> RequestTable:
        """Return requests [start, start + count); time 0 is the arrival of request start - 1.

        Raises:
            UserError: the trace ends before and does not repeat.
        """
        check_window(start, count, self.num_requests)
        index = np.arange(start, start + count, dtype=np.int64)
        row = index % len(self.table)
        origin = self._arrival(np.array([max(start - 1, 0)], dtype=np.int64))
        return RequestTable(
            to_seconds(self._arrival(index) - origin),
            self.table.prefill_tokens[row],
            self.table.decode_tokens[row],
            None if self.table.prompts is None else self.table.prompts.window(start, count),
            None if self.table.sessions is None else self.table.sessions.window(start, count),
        )

    def split(self, holdout_fraction: float) -> tuple[TraceStream, TraceStream]:
        """Return the part to train on and the part to judge on: the share at the trace's end.

        They share no request. A training may need more requests than there are, so its part
        repeats; the held-out part does not, so no request is judged twice.

        Raises:
            UserError: the fraction is not between 0 and 1, or a part would be too short.
        """
        if not 0.0 < holdout_fraction < 1.0:
            raise UserError(
                f"holdout_fraction={holdout_fraction}: expected a share above 0 and below 1"
            )
        held_out = held_out_count(len(self.table), holdout_fraction)
        first = len(self.table) - held_out
        if min(first, held_out) < 2:
            raise UserError(
                f"a trace of {len(self.table)} requests cannot be split with "
                f"holdout_fraction={holdout_fraction}: {first} would be left to train on and "
                f"{held_out} held out, and both need two; give a longer trace"
            )
        return (
            TraceStream(self.table.slice(0, first), repeat=True),
            TraceStream(self.table.slice(first, len(self.table))),
        )

    @cached_property
    def _ticks(self) -> NDArray[np.int64]:
        """Arrivals [N] in ticks after the first request."""
        return to_ticks(self.table.arrived_at - self.table.arrived_at[0])

    @cached_property
    def _lap_ticks(self) -> int:
        """How much later each request arrives when the trace starts again."""
        last = int(self._ticks[-1])
        return last + round(last / max(len(self.table) - 1, 1))

    def _arrival(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        lap, row = np.divmod(index, len(self.table))
        return lap * self._lap_ticks + self._ticks[row]
