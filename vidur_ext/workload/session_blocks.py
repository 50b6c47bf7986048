"""Blocks of sessions, drawn from seeds of their own, with names that no other block uses."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import import_module
from typing import NamedTuple, cast

import numpy as np

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.plugins import module_names
from vidur_ext.workload import presets
from vidur_ext.workload.drawn_sessions import Preset
from vidur_ext.workload.prompts import Ints
from vidur_ext.workload.quantiles import Floats
from vidur_ext.workload.sessions import NOMINAL_TOKEN_S

TURNS = 4096
"""Of every block."""

SHARED_SEGMENT = 0
"""The text with which all prompts of all sessions begin."""

_SEGMENTS = 3 * TURNS
"""Ids of a block: an opening, at most, a text and an answer for each turn."""


class SessionBlock(NamedTuple):
    """Sessions turn by turn, one session after the other; every array is [R].

    Blocks are joined by joining their arrays.

    Attributes:
        begins: when the session begins, as a share of the block's time, 0 to 1, ascending.
        offset_s: nominal seconds from there to the turn, at most the preset's ``LONGEST_S``.
        think_s: seconds before the turn, from the completion of the previous answer.
        session, turn: id of the session, and the number in it.
        opening, text, answer: tokens, not rounded: what the session's prompts begin with, what the
            turn adds, what is answered.
        opening_id, text_id, answer_id: the segments that these are.
    """

    begins: Floats
    offset_s: Floats
    think_s: Floats
    session: Ints
    turn: Ints
    opening: Floats
    text: Floats
    answer: Floats
    opening_id: Ints
    text_id: Ints
    answer_id: Ints


@cache
def preset_named(name: str) -> Preset:
    """Return the module of ``workload.presets`` with this name."""
    assert name in module_names(presets.__name__), name
    return cast(Preset, import_module(f"{presets.__name__}.{name}"))


@lru_cache(maxsize=64)
def draw_block(
    preset: str, seed: int, purpose: Purpose, variant: int, burstiness_cv: float, number: int
) -> SessionBlock:
    """Return block ``number`` of a stream, which may be negative; neighbours need the same ones.

    Args:
        burstiness_cv: coefficient of variation of the gaps between beginnings of sessions.
    """
    kind = preset_named(preset)
    # Seeds and ids know no negative numbers.
    name = 2 * number if number >= 0 else -2 * number - 1
    rng = generator(seed, purpose, episode=name, environment=variant)
    drawn = kind.draw(rng, TURNS)
    # Of its own stream: the sessions are the same whenever they begin.
    [of_times] = rng.spawn(1)
    gaps = np.cumsum(of_times.standard_gamma(burstiness_cv**-2, len(drawn.turns) + 1))
    session = np.repeat(np.arange(len(drawn.turns)), drawn.turns)
    first = np.cumsum(drawn.turns) - drawn.turns
    position = np.arange(TURNS)
    turn = position - first[session]

    answered_s = NOMINAL_TOKEN_S * np.roll(drawn.answer, 1) if kind.CONVERSES else 0.0
    elapsed_s = np.cumsum(np.where(turn > 0, drawn.wait_s + answered_s, 0.0))
    offset_s = elapsed_s - elapsed_s[first][session]
    span_s = offset_s[first + drawn.turns - 1][session]
    shortened = kind.LONGEST_S / np.maximum(span_s, kind.LONGEST_S)

    segment = SHARED_SEGMENT + 1 + _SEGMENTS * name
    return SessionBlock(
        begins=(gaps[:-1] / gaps[-1])[session],
        offset_s=np.minimum(offset_s * shortened, kind.LONGEST_S),
        think_s=drawn.wait_s * shortened,
        session=TURNS * name + session,
        turn=turn,
        opening=drawn.opening[session],
        text=drawn.text,
        answer=drawn.answer,
        opening_id=segment + session,
        text_id=segment + TURNS + position,
        answer_id=segment + 2 * TURNS + position,
    )
