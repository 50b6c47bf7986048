"""What prompts consist of: which requests share a prefix, and how far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.workload.frozen_columns import freeze_columns

Ints = NDArray[np.int64]


def ragged_indices(starts: Ints, lengths: Ints) -> Ints:
    """Return the indices of pieces [starts, starts + lengths), one piece after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of N requests as S segments of text; the columns are read-only copies.

    Segments with one id are the same text, from its beginning on: where two prompts have one that
    is cut at different lengths, they share the shorter one. So two prompts share a prefix exactly
    as far as their segments do, and no further, whatever stands behind the first difference. An
    answer is a segment of its own, ``decode_tokens`` long, which later prompts may contain.

    Attributes:
        segments: int64 [S], id of each segment, not negative; prompt after prompt.
        tokens: int64 [S], tokens of each segment, at least 1.
        first: int64 [N + 1], position of each prompt's first segment; then S. No prompt is empty.
        answers: int64 [N], id of the segment that each request's answer is.

    Raises:
        UserError: the columns do not describe prompts; the text names the first bad one.
    """

    segments: Ints
    tokens: Ints
    first: Ints
    answers: Ints

    def __post_init__(self) -> None:
        freeze_columns(self, ("segments", "tokens"), np.int64, np.size(self.segments), "segments")
        freeze_columns(self, ("answers",), np.int64, np.size(self.answers), "answers")
        freeze_columns(self, ("first",), np.int64, len(self.answers) + 1, "answers, and one more,")
        edges = np.array([0, len(self.segments)])
        if (self.first[[0, -1]] != edges).any() or (np.diff(self.first) < 1).any():
            raise UserError(
                f"first must lead from 0 to the {edges[1]} segments, with at least one segment for "
                f"each of {len(self)} prompts"
            )
        for name, least in (("segments", 0), ("answers", 0), ("tokens", 1)):
            column: Ints = getattr(self, name)
            wrong = np.flatnonzero(column < least)
            if len(wrong):
                raise UserError(
                    f"{name} of the prompts must be at least {least}, not {column[wrong[0]]} as at "
                    f"position {wrong[0]}"
                )

    def __len__(self) -> int:
        """Return the number of requests N."""
        return len(self.answers)

    @classmethod
    def of(cls, rows: list[list[tuple[int, int]]], answers: list[int]) -> Prompts:
        """Build prompts of (id, tokens) pairs, one list each, and the ids of the answers."""
        pairs = np.array([pair for row in rows for pair in row], dtype=np.int64).reshape(-1, 2)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(pairs[:, 0], pairs[:, 1], first, np.array(answers, dtype=np.int64))

    @property
    def lengths(self) -> Ints:
        """Tokens of each prompt [N]."""
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.tokens)])
        return np.diff(ends[self.first])

    def window(self, start: int, count: int) -> Prompts:
        """Return prompts [start, start + count).

        After the last one the rows begin again, as new texts: whoever replays a recording a second
        time knows nothing of the texts that came after it, only that they were others.
        """
        lap, row = np.divmod(np.arange(start, start + count), len(self))
        lengths = np.diff(self.first)[row]
        at = ragged_indices(self.first[row], lengths)
        ids = 1 + int(max(self.segments.max(initial=-1), self.answers.max(initial=-1)))
        return Prompts(
            self.segments[at] + np.repeat(lap * ids, lengths),
            self.tokens[at],
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            self.answers[row] + lap * ids,
        )

    def cut(self, lengths: Ints) -> Prompts:
        """Return the prompts cut at their ends, to at most ``lengths`` [N] tokens, 1 or more each.

        What is left is a prefix of what was there, so prompts share what is left of both.
        """
        counts = np.diff(self.first)
        ends = np.cumsum(self.tokens)
        before = np.repeat((ends - self.tokens)[self.first[:-1]], counts)
        room = np.repeat(lengths, counts) - (ends - self.tokens - before)
        kept = np.minimum(self.tokens, room)
        left = kept > 0
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(left)])[self.first]
        return Prompts(self.segments[left], kept[left], first, self.answers)
