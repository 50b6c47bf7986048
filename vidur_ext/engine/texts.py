"""Whose texts begin alike, as a tree of lines that grows with the requests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vidur_ext.engine.layout import Ints, Line, Settings
from vidur_ext.workload.block_identities import BlockRuns, block_runs
from vidur_ext.workload.request_table import RequestTable


class Texts(NamedTuple):
    """lines int64 [N, len(Line)]: line i is left to request i; leaves [N]: what each one ends on."""

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
    """Return those of requests [N] whose blocks are known.

    A request goes along the lines of those before it; where its text parts from theirs, it has a
    line of its own. Whoever is the first to go on where a line ends, goes on along it: so a
    session of many turns, each of which begins with all that was said before, is one line.
    """
    texts = separate_texts(len(runs.first) - 1)
    length = np.zeros(len(texts.leaves), dtype=np.int64)
    pieces: dict[int, list[tuple[int, int]]] = {}
    """By a run's identity: up to which of its blocks it lies on which line."""
    for request in range(len(texts.leaves)):
        line, place = -1, 0
        for run in range(runs.first[request], runs.first[request + 1]):
            blocks, done = int(runs.blocks[run]), 0
            known = pieces.setdefault(int(runs.identity[run]), [])
            for end, along in known:
                if done < blocks:
                    line = along
                    done = min(end, blocks)
            place += done
            if done == blocks:
                continue
            if line < 0 or length[line] != place:
                texts.lines[request, Line.PARENT] = line
                texts.lines[request, Line.BASE] = place
                line = request
            known.append((blocks, line))
            place += blocks - done
            length[line] = place
        if line >= 0:
            texts.leaves[request] = line
    return texts
