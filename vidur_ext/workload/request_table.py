"""Requests as three columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError


@dataclass(frozen=True)
class RequestTable:
    """N requests in the order of their arrival.

    arrived_at: float64 [N], seconds, not descending; prefill_tokens, decode_tokens: int64 [N], at
    least 1 each.
    """

    arrived_at: NDArray[np.float64]
    prefill_tokens: NDArray[np.int64]
    decode_tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.arrived_at)
        if not len(self.prefill_tokens) == len(self.decode_tokens) == count:
            raise UserError("the columns of a request table differ in length")
        if count and (np.diff(self.arrived_at) < 0).any():
            raise UserError("arrival times descend")
        if count and min(self.prefill_tokens.min(), self.decode_tokens.min()) < 1:
            raise UserError("every request needs at least one prompt and one output token")

    def __len__(self) -> int:
        return len(self.arrived_at)

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[float, int, int]]) -> RequestTable:
        """Build a table of (arrival [s], prompt tokens, output tokens) rows."""
        return cls(
            np.array([row[0] for row in rows], dtype=np.float64),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows], dtype=np.int64),
        )

    def at_rate(self, scale: float) -> RequestTable:
        """Return the same requests arriving ``scale`` times as fast."""
        return RequestTable(self.arrived_at / scale, self.prefill_tokens, self.decode_tokens)

    def rows(self, start: int, stop: int) -> RequestTable:
        """Return rows [start, stop), times as they are."""
        part = slice(start, stop)
        return RequestTable(
            self.arrived_at[part], self.prefill_tokens[part], self.decode_tokens[part]
        )


def fit_into(
    prefill: NDArray[np.int64], decode: NDArray[np.int64], max_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut requests to ``max_tokens``: outputs to max_tokens - 1, then prompts to the rest."""
    decode = np.clip(decode, 1, max_tokens - 1)
    return np.clip(prefill, 1, max_tokens - decode), decode
