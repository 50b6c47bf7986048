"""Texts and sessions as trace files tell them, request by request, made into columns."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.sessions import NO_PREVIOUS, Sessions
from vidur_ext.workload.trace_rows import column_error

Ints = NDArray[np.int64]

MOST_ID = 10**18
"""Ids are below, and so are int64."""


def parse_id(text: str) -> int | None:
    """Return an id, a whole number from 0; None if the text is none."""
    digits = text.strip()
    plain = digits.isascii() and digits.isdigit() and len(digits) < len(str(MOST_ID))
    return int(digits) if plain else None


@dataclass
class HashedPrompts:
    """Prompts whose files have an id for every block: equal ids, equal prefix through that block.

    What comes after a request is known by the hashes of later prompts alone, in which an answer
    cannot be told from what its user wrote next. So no answer is ever found again.
    """

    path: Path
    column: str
    block_tokens: int
    _ids: array[int] = field(default_factory=lambda: array("q"))
    _prompts: list[int] = field(default_factory=list)

    def add_unknown(self, prompt_tokens: int) -> None:
        """Append a prompt of which nothing is known: it shares nothing."""
        blocks = -(-prompt_tokens // self.block_tokens)
        self._ids.extend(-1 - len(self._ids) - block for block in range(blocks))
        self._prompts.append(prompt_tokens)

    def add(self, line: int, prompt_tokens: int, ids: Sequence[int | None]) -> None:
        """Append a prompt.

        Args:
            ids: one for every block, the last of which may be shorter; None where the file has
                something else.

        Raises:
            UserError: they are not as many as the prompt has blocks, or no ids.
        """
        blocks = -(-prompt_tokens // self.block_tokens)
        if len(ids) != blocks:
            raise self._error(
                line,
                f"expected {blocks} ids, one for each {self.block_tokens} tokens of "
                f"{prompt_tokens}, found {len(ids)}",
            )
        known = [one for one in ids if one is not None]
        if len(known) < blocks:
            raise self._error(
                line,
                f"expected whole numbers from 0, below {MOST_ID:.0e}; the one at position "
                f"{ids.index(None) + 1} is none",
            )
        self._ids.extend(known)
        self._prompts.append(prompt_tokens)

    def prompts(self) -> Prompts:
        """Return the collected prompts."""
        lengths = np.array(self._prompts, dtype=np.int64)
        blocks = -(-lengths // self.block_tokens)
        ends = np.cumsum(blocks)
        known, segments = np.unique(np.array(self._ids, dtype=np.int64), return_inverse=True)
        tokens = np.full(len(segments), self.block_tokens)
        tokens[ends - 1] = lengths - (blocks - 1) * self.block_tokens
        return Prompts(
            segments,
            tokens,
            np.concatenate([np.zeros(1, np.int64), ends]),
            len(known) + np.arange(len(lengths)),
        )

    def _error(self, line: int, text: str) -> UserError:
        return column_error(self.path, line, self.column, text)


@dataclass
class GrowingPrompts:
    """Prompts that begin with what their session said before: its last prompt and the answer."""

    _segments: list[Ints] = field(default_factory=list)
    _tokens: list[Ints] = field(default_factory=list)
    _answers: list[int] = field(default_factory=list)
    _said: dict[Hashable, tuple[Ints, Ints]] = field(default_factory=dict)

    def said(self, session: Hashable) -> int:
        """Return the tokens of a session's last prompt and answer; 0 before its first."""
        return int(self._said[session][1].sum()) if session in self._said else 0

    def add(self, session: Hashable, kept: int, prompt_tokens: int, answer_tokens: int) -> None:
        """Append a prompt that begins with ``kept`` tokens of what was said, then says new things.

        ``kept`` is at most ``said`` and below ``prompt_tokens``.
        """
        text, answer = 2 * len(self._answers), 2 * len(self._answers) + 1
        before: Ints = np.zeros(0, dtype=np.int64)
        segments, tokens = self._said.get(session, (before, before))
        left = np.clip(kept - (np.cumsum(tokens) - tokens), 0, tokens)
        segments = np.append(segments[left > 0], text)
        tokens = np.append(left[left > 0], prompt_tokens - kept)
        self._segments.append(segments)
        self._tokens.append(tokens)
        self._answers.append(answer)
        self._said[session] = np.append(segments, answer), np.append(tokens, answer_tokens)

    def prompts(self, order: Ints | None = None) -> Prompts:
        """Return the collected prompts, or those at the positions ``order``."""
        rows = np.arange(len(self._answers)) if order is None else order
        lengths = np.array([len(self._segments[row]) for row in rows], dtype=np.int64)
        return Prompts(
            np.concatenate([self._segments[row] for row in rows]),
            np.concatenate([self._tokens[row] for row in rows]),
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            np.array(self._answers, dtype=np.int64)[rows],
        )


@dataclass
class OpenSessions:
    """Sessions whose turns arrive when the recording says."""

    _session: list[int] = field(default_factory=list)
    _turn: list[int] = field(default_factory=list)
    _number: dict[Hashable, int] = field(default_factory=dict)
    _turns: dict[int, int] = field(default_factory=dict)

    def add(self, name: Hashable | None, turn: int | None = None) -> None:
        """Append a request of the session ``name``; None: one of its own.

        Args:
            turn: its number, from 0; None counts them.
        """
        own = (len(self._session),)  # no file's name is a tuple
        number = self._number.setdefault(own if name is None else name, len(self._number))
        counted = self._turns.get(number, 0)
        self._turns[number] = counted + 1
        self._session.append(number)
        self._turn.append(counted if turn is None else turn)

    def sessions(self) -> Sessions:
        """Return the collected sessions."""
        count = len(self._session)
        return Sessions(
            np.array(self._session, dtype=np.int64),
            np.array(self._turn, dtype=np.int64),
            np.full(count, NO_PREVIOUS),
            np.zeros(count),
        )
