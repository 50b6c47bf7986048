"""The random words that break a heuristic's ties, and what is drawn with them.

Ties are broken at random, never towards replica 0: breaking them towards one replica makes all
routers of a fleet herd.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats

WORDS_PER_DECISION = 4
"""32-bit words that a heuristic may draw for one decision."""

SPARE_WORDS = 64
"""More of them: a draw is repeated with a probability of R / 2^32."""


class Dice(NamedTuple):
    """words: uint32, the random stream; used int64 [1]: how many of them have been drawn."""

    words: NDArray[np.uint32]
    used: NDArray[np.int64]


def random_words(rng: np.random.Generator, count: int) -> NDArray[np.uint32]:
    """Return the next 32-bit words of a stream: the low half of its 64 bits first.

    An odd count leaves half of the last 64 bits undrawn.
    """
    raw = rng.bit_generator.random_raw((count + 1) // 2)
    halves = np.stack([raw & np.uint64(0xFFFFFFFF), raw >> np.uint64(32)], axis=1)
    return halves.ravel().astype(np.uint32)[:count]


@compiled
def draw(dice: Dice, top: int) -> int:
    """Return an integer of [0, top] from the words as NumPy's Generator draws it.

    Lemire, Fast random integer generation in an interval, 2019; one value draws no word.
    """
    if top == 0:
        return 0
    size = np.uint64(top + 1)
    threshold = (np.uint64(0xFFFFFFFF) - np.uint64(top)) % size
    while True:
        if dice.used[0] == len(dice.words):
            raise IndexError("the random words that break ties are used up")
        product = np.uint64(dice.words[dice.used[0]]) * size
        dice.used[0] += 1
        if (product & np.uint64(0xFFFFFFFF)) >= threshold:
            return int(np.int64(product >> np.uint64(32)))


@compiled
def lightest(scores: Floats, dice: Dice) -> int:
    """Return the index of the smallest score, ties broken uniformly."""
    best, ties = np.inf, 0
    for score in scores:
        if score < best:
            best, ties = score, 1
        elif score == best:
            ties += 1
    if ties == 0:
        raise ValueError("a heuristic's scores are not numbers")
    remaining = draw(dice, ties - 1) + 1
    chosen = -1
    while remaining > 0:
        chosen += 1
        if scores[chosen] == best:
            remaining -= 1
    return chosen
