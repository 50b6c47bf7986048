"""Which KV blocks of different requests hold the same text.

A prompt is a sequence of segments, and equal segments are equal text: two prompts share a prefix
exactly as far as their segments do, also where one of them cuts the last common segment shorter.
A block's identity stands for the whole text through its end, as the chained hash of vLLM's blocks
does (docs/design/prefix_caching.md), so equal identities mean equal prefixes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class BlockRuns(NamedTuple):
    """The full blocks of N requests, prompt and answer, as runs of consecutive identities.

    The runs are paths through a tree of prefixes: requests that share a run's identity share all
    that is before it, too, and leave it where their texts part.
    """

    first: Ints
    """Index [N+1] of each request's first run."""
    identity: Ints
    """Identity [R] of each run's first block; its others have the numbers that follow."""
    blocks: Ints
    """Blocks [R] of each run; at least one."""
    identities: int
    """How many there are; they are the numbers below this one."""

    def of_request(self, request: int) -> Ints:
        """Return the identity of each full block of a request, in their order."""
        runs = slice(self.first[request], self.first[request + 1])
        blocks = self.blocks[runs]
        within = np.arange(blocks.sum()) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        found: Ints = np.repeat(self.identity[runs], blocks) + within
        return found


def block_runs(
    segments: Ints,
    tokens: Ints,
    first: Ints,
    answers: Ints,
    answer_tokens: Ints,
    block_size: int,
) -> BlockRuns:
    """Return the identities of the full blocks of requests.

    Args:
        segments: segment ids [S] of all prompts, one after the other.
        tokens: their lengths [S]; a segment begins with the same text wherever it stands.
        first: index [N+1] of each prompt's first segment.
        answers: segment id [N] of each answer, which later prompts may contain.
        answer_tokens: their lengths [N].
    """
    ends = first[1:]
    text = _Texts(
        segments=np.insert(segments, ends, answers),
        tokens=np.insert(tokens, ends, answer_tokens),
        first=first + np.arange(len(first)),
    ).without_empty_segments()
    line, lines = _lines(text)
    before, behind = text.positions()
    blocks = behind // block_size - before // block_size
    # All who are on a line have come to it at the same token, so that its first block is the same.
    longest = np.zeros(lines, dtype=np.int64)
    np.maximum.at(longest, line, blocks)
    begins = np.cumsum(longest) - longest
    kept = np.flatnonzero(blocks)
    return BlockRuns(
        first=np.searchsorted(kept, text.first).astype(np.int64),
        identity=begins[line[kept]],
        blocks=blocks[kept],
        identities=int(longest.sum()),
    )


class _Texts(NamedTuple):
    """Prompts with their answers: ids [S] and lengths [S] of segments, first [N+1] of each."""

    segments: Ints
    tokens: Ints
    first: Ints

    def without_empty_segments(self) -> _Texts:
        full = np.flatnonzero(self.tokens)
        first = np.searchsorted(full, self.first).astype(np.int64)
        return _Texts(self.segments[full], self.tokens[full], first)

    def positions(self) -> tuple[Ints, Ints]:
        """Return how many tokens of its text are before and behind each segment's tokens [S]."""
        total = np.concatenate([[0], np.cumsum(self.tokens)]).astype(np.int64)
        start = np.repeat(total[self.first[:-1]], np.diff(self.first))
        return total[:-1] - start, total[1:] - start


def _lines(text: _Texts) -> tuple[Ints, int]:
    """Return the line [S] of each segment in a text, and how many lines there are.

    A line is a segment behind one text: segments are on the same one if the texts before them are
    equal. So a line is known by the line before it, how much of that was gone through, and the
    segment. All texts go one segment further at a time.
    """
    counts = np.diff(text.first)
    longest_first = np.argsort(-counts, kind="stable")
    line = np.zeros(len(text.segments), dtype=np.int64)
    lines = 0
    for depth in range(int(counts.max(initial=0))):
        at = text.first[longest_first[: np.count_nonzero(counts > depth)]] + depth
        keys = [text.segments[at]]
        if depth:
            keys += [text.tokens[at - 1], line[at - 1]]
        number, found = _numbered(keys)
        line[at] = lines + number
        lines += found
    return line, lines


def _numbered(keys: list[Ints]) -> tuple[Ints, int]:
    """Number the different columns of ``keys``: return the number of each, and how many."""
    order = np.lexsort(keys)
    new = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.concatenate([[0], np.cumsum(new)])
    return number, int(new.sum()) + 1
