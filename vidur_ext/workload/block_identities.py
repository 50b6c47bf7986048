"""Which KV blocks of different requests hold the same text.

A prompt is a sequence of segments, and equal segments are equal text: two prompts share a prefix
exactly as far as their segments do, also where one of them cuts the last common segment shorter.
A block's identity stands for the whole text through its end, as the chained hash of vLLM's blocks
does (docs/design/prefix_caching.md), so equal identities mean equal prefixes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vidur_ext.workload.prompts import Ints, Prompts, ragged_indices


class BlockRuns(NamedTuple):
    """The full blocks of N requests, prompt and answer, as runs of consecutive identities.

    The runs are paths through a tree of prefixes. Runs with the same first identity are beginnings
    of one sequence of blocks, with the same blocks before it; no run begins within another one.
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
        return ragged_indices(self.identity[runs], self.blocks[runs])

    def of_all(self) -> Ints:
        """Return the identities of all blocks of one request after the other."""
        return ragged_indices(self.identity, self.blocks)

    @property
    def counts(self) -> Ints:
        """Blocks of each request [N]."""
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.blocks)])
        return np.diff(ends[self.first])


def block_runs(prompts: Prompts, answer_tokens: Ints, block_size: int) -> BlockRuns:
    """Return the identities of the full blocks of requests.

    Args:
        answer_tokens: length [N] of each answer that stands behind its prompt.
    """
    ends = prompts.first[1:]
    text = _Texts(
        segments=np.insert(prompts.segments, ends, prompts.answers),
        tokens=np.insert(prompts.tokens, ends, answer_tokens),
        first=prompts.first + np.arange(len(prompts.first)),
    ).without_empty_segments()
    lines = _lines(text)
    before, behind = text.positions()
    begins, identities = _numbers(lines, before // block_size, behind // block_size)
    blocks = behind // block_size - before // block_size
    kept = np.flatnonzero(blocks)
    of_text = np.repeat(np.arange(len(prompts)), np.diff(text.first))[kept]
    identity, blocks = begins[lines.of_segment[kept]], blocks[kept]
    # Where a text goes on with the next number, its run goes on.
    new = np.ones(len(kept), dtype=np.bool_)
    new[1:] = (of_text[1:] != of_text[:-1]) | (identity[1:] != identity[:-1] + blocks[:-1])
    runs = np.flatnonzero(new)
    return BlockRuns(
        first=np.searchsorted(of_text[runs], np.arange(len(prompts) + 1)).astype(np.int64),
        identity=identity[runs],
        blocks=np.add.reduceat(blocks, runs) if len(runs) else blocks,
        identities=identities,
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


class _Lines(NamedTuple):
    """A line is a segment behind one text; all who are on it have the same text so far."""

    of_segment: Ints
    """Line [S] of each segment of the texts."""
    parent: Ints
    """The line [L] before; -1: texts begin with this one. A parent's number is the lower one."""
    generations: list[int]
    """The first line of all that are so and so many segments from the beginning, and L."""


def _lines(text: _Texts) -> _Lines:
    """Return the lines of texts, all of which are followed one segment further at a time.

    A line is known by its parent, by how much of that was gone through, and by its segment.
    """
    counts = np.diff(text.first)
    longest_first = np.argsort(-counts, kind="stable")
    line = np.zeros(len(text.segments), dtype=np.int64)
    parents: list[Ints] = [np.zeros(0, dtype=np.int64)]
    generations = [0]
    for depth in range(int(counts.max(initial=0))):
        at = text.first[longest_first[: np.count_nonzero(counts > depth)]] + depth
        before = line[at - 1] if depth else np.full(len(at), -1)
        gone_through = text.tokens[at - 1] if depth else np.zeros(len(at), dtype=np.int64)
        number, one_of_each = _numbered([text.segments[at], gone_through, before])
        line[at] = generations[-1] + number
        parents.append(before[one_of_each])
        generations.append(generations[-1] + len(one_of_each))
    return _Lines(line, np.concatenate(parents), generations)


def _numbered(keys: list[Ints]) -> tuple[Ints, Ints]:
    """Number the different columns of ``keys``: return the number of each, and one of each."""
    order = np.lexsort(keys)
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    return number, order[new]


def _numbers(lines: _Lines, before: Ints, behind: Ints) -> tuple[Ints, int]:
    """Return the identity [L] of each line's first block, and how many identities there are.

    Where a line ends, one of those that go on there gets the numbers that follow: whoever takes a
    whole text up again, as the turns of a session do, stays on one run.

    Args:
        before, behind: full blocks [S] of its text before and behind each segment.
    """
    parent = lines.parent
    start, end = np.zeros((2, len(parent)), dtype=np.int64)
    start[lines.of_segment] = before  # the same for all who are on a line
    np.maximum.at(end, lines.of_segment, behind)
    going_on = np.flatnonzero((parent >= 0) & (start == end[parent]))
    _, firsts = np.unique(parent[going_on], return_index=True)
    follows = np.zeros(len(parent), dtype=np.bool_)
    follows[going_on[firsts]] = True
    chain, offset = np.arange(len(parent)), np.zeros(len(parent), dtype=np.int64)
    length = end - start
    for youngest, behind_them in pairwise(lines.generations):
        heirs = youngest + np.flatnonzero(follows[youngest:behind_them])
        chain[heirs] = chain[parent[heirs]]
        offset[heirs] = offset[parent[heirs]] + length[parent[heirs]]
    total = np.bincount(chain, weights=length, minlength=len(parent)).astype(np.int64)
    return (np.cumsum(total) - total)[chain] + offset, int(total.sum())
