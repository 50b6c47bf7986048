"""A recorded stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable


@dataclass(frozen=True)
class TraceStream:
    """Requests of a table; with ``repeat`` the table starts again after its end.

    A repeated trace continues after its mean gap: the recording does not say what came next.
    """

    table: RequestTable
    repeat: bool = False

    @property
    def num_requests(self) -> int | None:
        return None if self.repeat else len(self.table)

    def window(self, start: int, count: int) -> RequestTable:
        length = len(self.table)
        if not self.repeat and start + count > length:
            raise UserError(
                f"requests {start} to {start + count - 1} were asked for, but the stream has "
                f"{length} only; ask for fewer"
            )
        gaps = np.diff(self.table.arrived_at, prepend=self.table.arrived_at[0])
        gaps[0] = gaps[1:].mean() if length > 1 else 0.0
        index = np.arange(start, start + count)
        window_gaps = gaps[index % length]
        if start == 0:
            window_gaps[0] = 0.0
        return RequestTable(
            np.cumsum(window_gaps),
            self.table.prefill_tokens[index % length],
            self.table.decode_tokens[index % length],
        )

    def split(self, holdout_fraction: float) -> tuple[TraceStream, TraceStream]:
        """Return the part to train on (repeating) and the part at the end that is held out.

        Raises:
            UserError: one of them would have fewer than two requests.
        """
        held = round(len(self.table) * holdout_fraction)
        first = len(self.table) - held
        if min(first, held) < 2:
            raise UserError(
                f"a trace of {len(self.table)} requests cannot be split with "
                f"workload.holdout_fraction={holdout_fraction}: both parts need two requests"
            )
        training = TraceStream(self.table.rows(0, first), repeat=True)
        return training, TraceStream(self.table.rows(first, len(self.table)))
