"""An endless stream of sessions: turns that share prefixes and wait for answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ppo_scheduler.seeding import Purpose
from vidur_ext.workload.prompts import Ints, Prompts, ragged_indices
from vidur_ext.workload.quantiles import Floats, whole
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.session_blocks import (
    SHARED_SEGMENT,
    TURNS,
    SessionBlock,
    draw_block,
    preset_named,
)
from vidur_ext.workload.sessions import NO_PREVIOUS, Sessions
from vidur_ext.workload.stream import check_drawn, check_window, to_seconds, to_ticks

MOST_QPS = 1000.0
"""Sessions last hours: a window of a faster stream would cost millions of turns."""


@dataclass(frozen=True)
class SessionStream:
    """Sessions of a preset; their turns stand in the order of their nominal arrivals.

    Sessions are drawn in blocks of 4096 turns, each from a seed of its own (seed, purpose, block,
    variant), and begin within the block's equal share of time; their turns arrive later, blocks
    later perhaps. As many requests arrive before a block as blocks before it have turns, but for
    those still to come. So a window costs the blocks whose sessions reach into it, wherever it is,
    and a stream has no state to save. It has no beginning either: sessions that began before
    request 0 are under way.

    Nominally an answer takes 0.03 s per token. In a table a turn of a preset that converses waits
    for the answer before, or arrives at its nominal time if that is no part of the window.

    Another rate, scale or limit leaves the drawn sessions alone.

    Attributes:
        preset: a module of ``workload.presets``.
        qps: mean arrival rate [requests/s], all turns counted; think times do not depend on it.
        arrival: of sessions: ``poisson``, or ``gamma`` with coefficient of variation
            ``burstiness_cv``.
        max_tokens: prompt + output at most; see :meth:`RequestTable.limited`.
        length_scale: factor on the tokens of texts and answers.
        variant: tells streams of one seed and purpose apart.

    Raises:
        UserError: a value is out of its range.
    """

    preset: str
    seed: int
    purpose: Purpose
    qps: float
    arrival: str
    burstiness_cv: float
    max_tokens: int
    length_scale: float = 1.0
    variant: int = 0

    def __post_init__(self) -> None:
        rate = f"a number of requests per second above 0, at most {MOST_QPS:g} with sessions"
        more = (
            ("qps", 0.0 < self.qps <= MOST_QPS, rate),
            ("length_scale", 0.0 < self.length_scale <= 1.0, "a number above 0, at most 1"),
        )
        check_drawn(self, more)

    @property
    def num_requests(self) -> int | None:
        """None: the stream has no end."""
        return None

    def window(self, start: int, count: int) -> RequestTable:
        """Return requests [start, start + count); time 0 is the arrival of request start - 1.

        At start 0 it is the beginning of the stream; all times are nominal.
        """
        check_window(start, count, self.num_requests)
        before = min(start, 1)  # the request whose arrival is time 0
        wanted = start - before
        first = self._block_of(wanted)
        last = first
        while self._arrived_before(last + 1) < start + count:
            last += 1
        numbers = range(first - self.reach, last + 1)
        ticks = np.concatenate(
            [self.arrival_ticks(number) + (number - first) * self.block_ticks for number in numbers]
        )
        inside = np.flatnonzero((ticks >= 0) & (ticks < (last + 1 - first) * self.block_ticks))
        ordered = inside[np.argsort(ticks[inside], kind="stable")]
        skipped = wanted - self._arrived_before(first)
        rows = ordered[skipped : skipped + before + count]
        origin = int(ticks[rows[0]]) if before else -first * self.block_ticks
        rows = rows[before:]
        drawn = SessionBlock(
            *(np.concatenate(arrays) for arrays in zip(*map(self._block, numbers), strict=True))
        )
        prompts = self._prompts(drawn, rows)
        table = RequestTable(
            to_seconds(ticks[rows] - origin),
            prompts.lengths,
            self._tokens(drawn.answer[rows]),
            prompts,
            _sessions(drawn, rows) if preset_named(self.preset).CONVERSES else None,
        )
        return table.limited(self.max_tokens)[0]

    @property
    def block_ticks(self) -> int:
        """How long the sessions of one block keep beginning."""
        return int(to_ticks(np.array(TURNS / self.qps)))

    @property
    def reach(self) -> int:
        """How many blocks later the last turn of a session may arrive."""
        longest = int(to_ticks(np.array(preset_named(self.preset).LONGEST_S)))
        return 1 + longest // self.block_ticks

    def arrival_ticks(self, number: int) -> Ints:
        """Return when the turns of a block arrive nominally, since the block's beginning [R]."""
        block = self._block(number)
        begins = np.floor(block.begins * self.block_ticks).astype(np.int64)
        return begins + to_ticks(block.offset_s)

    def _block(self, number: int) -> SessionBlock:
        cv = 1.0 if self.arrival == "poisson" else self.burstiness_cv
        return draw_block(self.preset, self.seed, self.purpose, self.variant, cv, number)

    def _block_of(self, request: int) -> int:
        """Return the block in whose time a request arrives."""
        block = request // TURNS
        while self._arrived_before(block) > request:
            block -= 1
        while self._arrived_before(block + 1) <= request:
            block += 1
        return block

    def _arrived_before(self, number: int) -> int:
        """Return how many requests of the stream arrive before block ``number`` begins."""
        return number * TURNS + self._to_come(0) - self._to_come(number)

    def _to_come(self, number: int) -> int:
        """Return how many turns of earlier blocks are to come when block ``number`` begins."""
        return sum(_late(self, number - back)[back] for back in range(1, self.reach + 1))

    def _prompts(self, drawn: SessionBlock, rows: Ints) -> Prompts:
        """Return what all share, the session's opening, what was said before, and the new text."""
        preset = preset_named(self.preset)
        # Texts and answers in turn: what was said in a session is one piece of it.
        said = self._tokens(np.stack([drawn.text, drawn.answer], axis=1).ravel())
        said_id = np.stack([drawn.text_id, drawn.answer_id], axis=1).ravel()
        before = 2 * drawn.turn[rows] if preset.CONVERSES else np.zeros_like(rows)
        heads = 2 if preset.SHARED_TOKENS else 1
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(heads + before + 1)])
        segments = np.full(first[-1], SHARED_SEGMENT)
        tokens = np.full(first[-1], self._tokens(np.array(float(preset.SHARED_TOKENS))))
        opening = first[:-1] + heads - 1
        segments[opening] = drawn.opening_id[rows]
        tokens[opening] = self._tokens(drawn.opening[rows])
        place = ragged_indices(opening + 1, before + 1)
        piece = ragged_indices(2 * rows - before, before + 1)
        segments[place], tokens[place] = said_id[piece], said[piece]
        return Prompts(segments, tokens, first, drawn.answer_id[rows])

    def _tokens(self, drawn: Floats) -> Ints:
        return whole(drawn * self.length_scale)


def _sessions(drawn: SessionBlock, rows: Ints) -> Sessions:
    place = np.full(len(drawn.turn), NO_PREVIOUS)
    place[rows] = np.arange(len(rows))
    # The turn before stands one row above, in the window or not.
    previous = np.where(drawn.turn[rows] > 0, place[rows - 1], NO_PREVIOUS)
    think_s = np.where(previous == NO_PREVIOUS, 0.0, drawn.think_s[rows])
    return Sessions(drawn.session[rows], drawn.turn[rows], previous, think_s)


@lru_cache(maxsize=4096)
def _late(stream: SessionStream, number: int) -> tuple[int, ...]:
    """Return how many turns of a block arrive at least 0, 1, … blocks later."""
    later = stream.arrival_ticks(number) // stream.block_ticks
    counts = np.bincount(later, minlength=stream.reach + 1)
    return tuple(np.cumsum(counts[::-1])[::-1].tolist())
