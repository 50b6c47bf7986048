"""Requests as three columns, cut to the model's context."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError

Tokens = NDArray[np.int64]


class LimitedTokens(NamedTuple):
    """Token counts [N] that fit, and how many requests had to be cut."""

    prefill: Tokens
    decode: Tokens
    num_cut: int


def limit_tokens(prefill: Tokens, decode: Tokens, max_tokens: int) -> LimitedTokens:
    """Cut requests so that prompt + output <= ``max_tokens`` (at least 2).

    The output decides how long a request occupies a replica, so it is kept where possible: it is
    cut to max_tokens - 1 only, and the prompt gives way to the rest.
    """
    assert max_tokens >= 2
    num_cut = int(np.count_nonzero(prefill + decode > max_tokens))
    decode = np.minimum(decode, max_tokens - 1)
    return LimitedTokens(np.minimum(prefill, max_tokens - decode), decode, num_cut)


def freeze_columns(
    owner: object, names: Sequence[str], dtype: type[np.generic], length: int
) -> None:
    """Replace columns of a frozen dataclass by read-only copies.

    Args:
        names: the attributes that hold them.
        length: entries of each, one per request.

    Raises:
        UserError: a column has another shape, or a type that would have to be rounded.
    """
    for name in names:
        given = np.asarray(getattr(owner, name))
        if given.shape != (length,):
            found = f"{given.size} entries" if given.ndim == 1 else f"the shape {given.shape}"
            raise UserError(
                f"columns must have one length: {name} has {found}, arrived_at has {length}"
            )
        if not np.can_cast(given.dtype, dtype, "safe"):
            needed = "integers" if dtype is np.int64 else "numbers"
            raise UserError(
                f"{name} holds {given.dtype}; expected {np.dtype(dtype)}: it must hold {needed}"
            )
        column = given.astype(dtype, copy=True)
        column.setflags(write=False)
        object.__setattr__(owner, name, column)


@dataclass(frozen=True, eq=False)
class RequestTable:
    """N requests in the order of their arrival; the columns are read-only copies.

    Attributes:
        arrived_at: float64 [N], seconds, finite, not negative and not descending.
        prefill_tokens: int64 [N], prompt tokens, at least 1 each.
        decode_tokens: int64 [N], output tokens, at least 1 each.

    Raises:
        UserError: the columns do not describe requests; the text names the first bad one.
    """

    arrived_at: NDArray[np.float64]
    prefill_tokens: NDArray[np.int64]
    decode_tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        length = np.size(self.arrived_at)
        freeze_columns(self, ("arrived_at",), np.float64, length)
        freeze_columns(self, ("prefill_tokens", "decode_tokens"), np.int64, length)
        self._check_times()
        self._check_tokens("prefill_tokens")
        self._check_tokens("decode_tokens")

    def __len__(self) -> int:
        """Return the number of requests N."""
        return len(self.arrived_at)

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[float, int, int]]) -> RequestTable:
        """Build a table of (arrival [s], prompt tokens, output tokens) rows."""
        times, prompts, outputs = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(
            np.array(times, dtype=np.float64),
            np.array(prompts, dtype=np.int64),
            np.array(outputs, dtype=np.int64),
        )

    def at_rate(self, scale: float) -> RequestTable:
        """Return the same requests arriving ``scale`` times as fast.

        Raises:
            UserError: ``scale`` is not a finite number above 0.
        """
        if not (np.isfinite(scale) and scale > 0.0):
            raise UserError(f"a rate scale must be a finite number above 0, not {scale}")
        return RequestTable(self.arrived_at / scale, self.prefill_tokens, self.decode_tokens)

    def slice(self, start: int, stop: int) -> RequestTable:
        """Return requests [start, stop) with their times as they are."""
        part = slice(start, stop)
        return RequestTable(
            self.arrived_at[part], self.prefill_tokens[part], self.decode_tokens[part]
        )

    def digest(self) -> str:
        """Return a sha256 that is equal for equal arrival times and token counts."""
        content = hashlib.sha256()
        for column in (self.arrived_at, self.prefill_tokens, self.decode_tokens):
            content.update(column.tobytes())
        return content.hexdigest()

    def _check_times(self) -> None:
        times = self.arrived_at
        wrong = np.flatnonzero(~(np.isfinite(times) & (times >= 0.0)))
        if len(wrong):
            raise UserError(
                f"request {wrong[0]} arrives at {times[wrong[0]]} s; arrival times must be finite "
                "and not negative"
            )
        late = np.flatnonzero(np.diff(times) < 0.0)
        if len(late):
            first = int(late[0])
            raise UserError(
                f"request {first + 1} arrives at {times[first + 1]} s, before request {first} at "
                f"{times[first]} s; sort requests by arrival"
            )

    def _check_tokens(self, name: str) -> None:
        column: NDArray[np.int64] = getattr(self, name)
        wrong = np.flatnonzero(column < 1)
        if len(wrong):
            raise UserError(
                f"request {wrong[0]} has {column[wrong[0]]} {name}; at least 1 is needed"
            )
