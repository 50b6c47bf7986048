"""An endless stream of sessions: turns that share prefixes and wait for answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import NamedTuple, cast

import numpy as np

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.plugins import module_names
from vidur_ext.workload import presets
from vidur_ext.workload.drawn_sessions import Preset
from vidur_ext.workload.prompts import Ints, Prompts, ragged_indices
from vidur_ext.workload.quantiles import Floats, whole
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import NO_PREVIOUS, NOMINAL_TOKEN_S, Sessions
from vidur_ext.workload.stream import check_window, to_seconds, to_ticks

_BLOCK = 4096
_IDS = 3 * _BLOCK
"""Of a block: a text and an answer per turn, and openings."""
_SHARED_SEGMENT = 0
MOST_QPS = 1000.0


@cache
def preset_named(name: str) -> Preset:
    """Return the module of ``workload.presets`` with this name."""
    assert name in module_names(presets.__name__), name
    return cast(Preset, import_module(f"{presets.__name__}.{name}"))


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
        for name, valid, expected in (
            ("seed", self.seed >= 0, "an integer >= 0"),
            ("variant", self.variant >= 0, "an integer >= 0"),
            (
                "qps",
                0.0 < self.qps <= MOST_QPS,
                f"a number of requests per second above 0, at most {MOST_QPS:g} with sessions",
            ),
            ("arrival", self.arrival in ("poisson", "gamma"), "poisson or gamma"),
            ("burstiness_cv", 0.0 < self.burstiness_cv <= 20.0, "a number above 0, at most 20"),
            ("max_tokens", self.max_tokens >= 2, "an integer >= 2"),
            ("length_scale", 0.0 < self.length_scale <= 1.0, "a number above 0, at most 1"),
        ):
            if not valid:
                raise UserError(f"workload {name}={getattr(self, name)!r}: expected {expected}")

    @property
    def num_requests(self) -> int | None:
        """None: the stream has no end."""
        return None

    def window(self, start: int, count: int) -> RequestTable:
        """Return requests [start, start + count); time 0 is the arrival of request start - 1.

        At start 0 it is the beginning of the stream; all times are nominal.
        """
        check_window(start, count, self.num_requests)
        before = min(start, 1)  # the request that time 0 is told by
        wanted = start - before
        block = self._block_of(wanted)
        last = block
        while self._begun_before(last + 1) < start + count:
            last += 1
        parts = [self.part(number) for number in range(block - self.reach, last + 1)]
        ticks = np.concatenate(
            [part.ticks + (part.number - block) * self.block_ticks for part in parts]
        )
        inside = np.flatnonzero((ticks >= 0) & (ticks < (last + 1 - block) * self.block_ticks))
        ordered = inside[np.argsort(ticks[inside], kind="stable")]
        skipped = wanted - self._begun_before(block)
        turns = ordered[skipped : skipped + before + count]
        origin = int(ticks[turns[0]]) if before else -block * self.block_ticks
        turns = turns[before:]
        table = self._requests(parts, turns, to_seconds(ticks[turns] - origin))
        return table.limited(self.max_tokens)[0]

    @property
    def block_ticks(self) -> int:
        """How long sessions of one block begin."""
        return int(to_ticks(np.array(_BLOCK / self.qps)))

    @property
    def reach(self) -> int:
        """How many blocks later the last turn of a session may arrive."""
        longest = int(to_ticks(np.array(preset_named(self.preset).LONGEST_S)))
        return 1 + longest // self.block_ticks

    def part(self, number: int) -> _Part:
        block = _draw_block(
            self.preset,
            self.seed,
            self.purpose,
            self.variant,
            1.0 if self.arrival == "poisson" else self.burstiness_cv,
            number,
        )
        begins = np.floor(block.begins * self.block_ticks).astype(np.int64)
        return _Part(number, block, begins[block.session] + to_ticks(block.offset_s))

    def _begun_before(self, number: int) -> int:
        """Return how many requests of the stream arrive before block ``number`` begins."""
        return number * _BLOCK + self._to_come(0) - self._to_come(number)

    def _to_come(self, number: int) -> int:
        """Return how many turns are still to come, when block ``number`` begins, of sessions that
        began before it.
        """
        return sum(_late(self, number - back)[back] for back in range(1, self.reach + 1))

    def _block_of(self, request: int) -> int:
        """Return the block in whose time a request arrives."""
        block = request // _BLOCK
        while self._begun_before(block) > request:
            block -= 1
        while self._begun_before(block + 1) <= request:
            block += 1
        return block

    def _requests(self, parts: list[_Part], turns: Ints, arrived_at: Floats) -> RequestTable:
        """Return the requests at positions ``turns`` of all turns of some blocks."""
        preset = preset_named(self.preset)
        blocks = [part.block for part in parts]
        number = np.concatenate([block.turn for block in blocks])
        answers = self._tokens(np.concatenate([block.answer for block in blocks]))
        prompts = self._prompts(parts, turns, number, answers)
        sessions = None
        if preset.CONVERSES:
            row = np.full(len(number), NO_PREVIOUS)
            row[turns] = np.arange(len(turns))
            previous = np.where(number[turns] > 0, row[turns - 1], NO_PREVIOUS)
            think_s = np.concatenate([block.think_s for block in blocks])[turns]
            session = np.concatenate(
                [_name(part.number) * _BLOCK + part.block.session for part in parts]
            )
            sessions = Sessions(
                session[turns],
                number[turns],
                previous,
                np.where(previous == NO_PREVIOUS, 0.0, think_s),
            )
        return RequestTable(arrived_at, prompts.lengths, answers[turns], prompts, sessions)

    def _prompts(self, parts: list[_Part], turns: Ints, number: Ints, answers: Ints) -> Prompts:
        """Return their prompts: what all share, the opening, what was said before, the new text."""
        preset = preset_named(self.preset)
        # Texts and answers by turns, in a row: a conversation is a piece of it.
        said = np.stack(
            [self._tokens(np.concatenate([part.block.text for part in parts])), answers], axis=1
        ).ravel()
        base = 1 + _IDS * np.array([_name(part.number) for part in parts])
        said_id = (base[:, None] + np.arange(2 * _BLOCK)).ravel()
        opening = np.concatenate([part.block.opening[part.block.session] for part in parts])
        opening_id = np.concatenate(
            [
                first + 2 * _BLOCK + part.block.session
                for first, part in zip(base, parts, strict=True)
            ]
        )
        history = 2 * number[turns] if preset.CONVERSES else np.zeros(len(turns), dtype=np.int64)
        heads = 2 if preset.SHARED_TOKENS else 1
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(heads + history + 1)])
        segments = np.full(first[-1], _SHARED_SEGMENT)
        tokens = np.full(first[-1], self._tokens(np.array(float(preset.SHARED_TOKENS))))
        segments[first[:-1] + heads - 1] = opening_id[turns]
        tokens[first[:-1] + heads - 1] = self._tokens(opening[turns])
        to = ragged_indices(first[:-1] + heads, history + 1)
        source = ragged_indices(2 * turns - history, history + 1)
        segments[to], tokens[to] = said_id[source], said[source]
        return Prompts(segments, tokens, first, said_id[2 * turns + 1])

    def _tokens(self, drawn: Floats) -> Ints:
        return whole(drawn * self.length_scale)


class _Block(NamedTuple):
    """Sessions as drawn: M of them, with R turns.

    begins: [M] when they begin, as share of the block's time, ascending; opening: [M] tokens.
    session, turn: [R] which session's, and the number in it; offset_s: [R] nominal seconds since
    the session began; think_s, text, answer: [R], see ``DrawnSessions``.
    """

    begins: Floats
    opening: Floats
    session: Ints
    turn: Ints
    offset_s: Floats
    think_s: Floats
    text: Floats
    answer: Floats


class _Part(NamedTuple):
    """A block of a stream; ticks: [R] nominal arrival of each turn since the block began."""

    number: int
    block: _Block
    ticks: Ints


def _name(number: int) -> int:
    """Return a block's number in seeds and ids, which cannot be negative."""
    return 2 * number if number >= 0 else -2 * number - 1


@lru_cache(maxsize=4096)
def _late(stream: SessionStream, number: int) -> tuple[int, ...]:
    """Return how many turns of a block arrive at least 0, 1, … blocks later."""
    later = stream.part(number).ticks // stream.block_ticks
    counts = np.bincount(later, minlength=stream.reach + 1)
    return tuple(np.cumsum(counts[::-1])[::-1].tolist())


@lru_cache(maxsize=128)
def _draw_block(
    preset: str, seed: int, purpose: Purpose, variant: int, burstiness_cv: float, number: int
) -> _Block:
    """Draw a block; neighbouring windows need the same ones."""
    kind = preset_named(preset)
    rng = generator(seed, purpose, episode=_name(number), environment=variant)
    drawn = kind.draw(rng, _BLOCK)
    sessions = len(drawn.turns)
    # Of its own stream: the sessions are the same whenever they begin.
    [of_times] = rng.spawn(1)
    gaps = np.cumsum(of_times.standard_gamma(burstiness_cv**-2, sessions + 1))
    session = np.repeat(np.arange(sessions), drawn.turns)
    first = np.cumsum(drawn.turns) - drawn.turns
    turn = np.arange(_BLOCK) - first[session]
    answered_s = NOMINAL_TOKEN_S * np.roll(drawn.answer, 1) if kind.CONVERSES else 0.0
    elapsed = np.cumsum(np.where(turn > 0, drawn.wait_s + answered_s, 0.0))
    offset_s = elapsed - elapsed[first][session]
    span = offset_s[first + drawn.turns - 1]
    haste = np.minimum(kind.LONGEST_S / np.maximum(span, kind.LONGEST_S), 1.0)[session]
    return _Block(
        begins=gaps[:-1] / gaps[-1],
        opening=drawn.opening,
        session=session,
        turn=turn,
        offset_s=np.minimum(offset_s * haste, kind.LONGEST_S),
        think_s=drawn.wait_s * haste,
        text=drawn.text,
        answer=drawn.answer,
    )
