"""Requests: their times and lengths and, where they are known, their texts and sessions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.workload.frozen_columns import freeze_columns
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.sessions import Sessions

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


@dataclass(frozen=True, eq=False)
class RequestTable:
    """N requests in the order of their arrival; the columns are read-only copies.

    Attributes:
        arrived_at: float64 [N], seconds, finite, not negative and not descending. A request that
            waits for a previous turn arrives when ``sessions`` say; its time here orders the rows.
        prefill_tokens: int64 [N], prompt tokens, at least 1 each.
        decode_tokens: int64 [N], output tokens, at least 1 each.
        prompts: what the prompts consist of; None: they have nothing in common.
        sessions: who belongs to which session; None: every request is a session of its own.

    Raises:
        UserError: the columns do not describe requests; the text names the first bad one.
    """

    arrived_at: NDArray[np.float64]
    prefill_tokens: NDArray[np.int64]
    decode_tokens: NDArray[np.int64]
    prompts: Prompts | None = None
    sessions: Sessions | None = None

    def __post_init__(self) -> None:
        length = np.size(self.arrived_at)
        freeze_columns(self, ("arrived_at",), np.float64, length)
        freeze_columns(self, ("prefill_tokens", "decode_tokens"), np.int64, length)
        self._check_times()
        self._check_tokens("prefill_tokens")
        self._check_tokens("decode_tokens")
        self._check_identity()

    def __len__(self) -> int:
        """Return the number of requests N."""
        return len(self.arrived_at)

    @property
    def waits(self) -> bool:
        """Whether some request waits for the answer to another one: ``arrived_at`` is nominal."""
        return self.sessions is not None and bool(self.sessions.waits.any())

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
        """Return the same requests arriving ``scale`` times as fast, think times included.

        Raises:
            UserError: ``scale`` is not a finite number above 0.
        """
        if not (np.isfinite(scale) and scale > 0.0):
            raise UserError(f"a rate scale must be a finite number above 0, not {scale}")
        sessions = None if self.sessions is None else self.sessions.at_rate(scale)
        return replace(self, arrived_at=self.arrived_at / scale, sessions=sessions)

    def slice(self, start: int, stop: int) -> RequestTable:
        """Return requests [start, stop) with their times as they are.

        A turn whose previous one is not among them arrives at its time.
        """
        part = slice(start, min(stop, len(self)))
        count = max(0, part.stop - start)
        return RequestTable(
            self.arrived_at[part],
            self.prefill_tokens[part],
            self.decode_tokens[part],
            None if self.prompts is None else self.prompts.window(start, count),
            None if self.sessions is None else self.sessions.window(start, count),
        )

    def limited(self, max_tokens: int) -> tuple[RequestTable, int]:
        """Return the requests cut to ``max_tokens``, and how many had to be.

        See :func:`limit_tokens`; prompts are cut at their ends.
        """
        limited = limit_tokens(self.prefill_tokens, self.decode_tokens, max_tokens)
        if limited.num_cut == 0:
            return self, 0
        prompts = None if self.prompts is None else self.prompts.cut(limited.prefill)
        cut = replace(
            self, prefill_tokens=limited.prefill, decode_tokens=limited.decode, prompts=prompts
        )
        return cut, limited.num_cut

    def digest(self) -> str:
        """Return a sha256 that is equal for equal requests."""
        content = hashlib.sha256()
        for column in (self.arrived_at, self.prefill_tokens, self.decode_tokens):
            content.update(column.tobytes())
        for part in (self.prompts, self.sessions):
            if part is not None:
                content.update(type(part).__name__.encode())
                for field in fields(part):
                    content.update(getattr(part, field.name).tobytes())
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

    def _check_identity(self) -> None:
        for name in ("prompts", "sessions"):
            part = getattr(self, name)
            if part is not None and len(part) != len(self):
                raise UserError(f"{name} describes {len(part)} requests; the table has {len(self)}")
        if self.prompts is not None:
            lengths = self.prompts.lengths
            wrong = np.flatnonzero(lengths != self.prefill_tokens)
            if len(wrong):
                raise UserError(
                    f"request {wrong[0]} has {self.prefill_tokens[wrong[0]]} prefill_tokens, but "
                    f"its segments have {lengths[wrong[0]]}"
                )
