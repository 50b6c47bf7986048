"""Whose texts begin alike, as a tree of lines that grows with the requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidur_ext.engine.layout import Ints, Line, Settings
from vidur_ext.workload.block_identities import BlockRuns, block_runs
from vidur_ext.workload.request_table import RequestTable


class Texts(NamedTuple):
    """The texts of N requests as lines.

    lines int64 [N, len(Line)]: line i is left to request i. leaves [N]: the line each one ends on.
    """

    lines: Ints
    leaves: Ints


def separate_texts(count: int) -> Texts:
    """Return those of requests [N] that have no text in common."""
    lines = np.zeros((count, len(Line)), dtype=np.int64)
    lines[:, Line.PARENT] = -1
    return Texts(lines, np.arange(count))


def texts_of(table: RequestTable, settings: Settings) -> Texts:
    """Return those of a table's requests, as far as anything is kept of them."""
    if not settings.prefix_caching or table.prompts is None:
        return separate_texts(len(table))
    return common_texts(block_runs(table.prompts, table.decode_tokens, settings.block_size))


def common_texts(runs: BlockRuns) -> Texts:
    """Return those of requests [N] whose blocks are known."""
    tree = TextTree()
    texts = separate_texts(len(runs.first) - 1)
    for request in range(len(texts.leaves)):
        part = slice(runs.first[request], runs.first[request + 1])
        place = tree.add(request, runs.identity[part].tolist(), runs.blocks[part].tolist())
        texts.lines[request, Line.PARENT] = place.parent
        texts.lines[request, Line.BASE] = place.base
        texts.leaves[request] = place.leaf
    return texts


class Place(NamedTuple):
    """Where a text stands: the line it ends on; and where its own line, if it has one, leaves."""

    leaf: int
    parent: int = -1
    base: int = 0


class TextTree:
    """The lines of the texts that were added, one after the other.

    A text goes along the lines of those before it; where it parts from theirs, it has a line of its
    own. Whoever is the first to go on where a line ends, goes on along it: so a session of many
    turns, each of which begins with all that was said before, is one line.
    """

    def __init__(self) -> None:
        self._pieces: dict[int, list[tuple[int, int]]] = {}
        """By a run's identity: up to which of its blocks it lies on which line."""
        self._length: dict[int, int] = {}
        """Where each line ends [blocks from the beginning of the text]."""

    def add(self, request: int, identities: Sequence[int], blocks: Sequence[int]) -> Place:
        """Add the text of a request, whose number no other has.

        Args:
            identities, blocks: the identity of each run's first block, and its blocks; see
                ``BlockRuns``.
        """
        line, place, own = -1, 0, Place(request)
        for identity, count in zip(identities, blocks, strict=True):
            done = 0
            known = self._pieces.setdefault(identity, [])
            for end, along in known:
                if done < count:
                    line = along
                    done = min(end, count)
            place += done
            if done == count:
                continue
            if self._length.get(line) != place:
                own = Place(request, line, place)
                line = request
            known.append((count, line))
            place += count - done
            self._length[line] = place
        return own if line in (-1, request) else Place(line)
