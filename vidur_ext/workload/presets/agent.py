"""Coding agents: every answer calls tools, whose results are the next prompt's news.

A session begins with the context it has by then, of which a cache knows no more than the tools and
instructions that all agents share; people resume conversations after hours. Source: the statistics
of TraceLab's coding agents, arXiv:2606.30560.
"""

from __future__ import annotations

import numpy as np

from vidur_ext.workload import quantiles
from vidur_ext.workload.drawn_sessions import DrawnSessions

SHARED_TOKENS = 12_000
CONVERSES = True
LONGEST_S = 14_400.0

_STEPS_PER_REQUEST = 8.8
_REQUESTS_PER_SESSION = 2.8
_OPENING = {
    0.0: 3000, 0.1: 5000, 0.25: 9000, 0.5: 36_000, 0.75: 92_000, 0.9: 128_000, 1.0: 210_000,
}  # fmt: skip
_TEXT = {0.0: 20, 0.25: 185, 0.5: 530, 0.9: 6000, 0.99: 20_000, 1.0: 50_000}
_ANSWER = {0.0: 10, 0.25: 110, 0.5: 205, 0.9: 1000, 0.99: 4500, 1.0: 16_000}
_TOOLS_S = {0.0: 0.005, 0.25: 0.058, 0.5: 0.285, 0.9: 13.6, 1.0: 80.0}
_THINK_S = {0.0: 1.0, 0.25: 17.9, 0.5: 84.0, 0.9: 1236.0, 1.0: 3600.0}


def draw(rng: np.random.Generator, turns: int) -> DrawnSessions:
    """Return sessions of ``turns`` turns together: a turn is a step of a user's request."""
    asks = rng.random(turns) < 1.0 / _STEPS_PER_REQUEST
    begins = asks & (rng.random(turns) < 1.0 / _REQUESTS_PER_SESSION)
    begins[0] = True
    first = np.flatnonzero(begins)
    tools_s = quantiles.draw(rng, _TOOLS_S, turns)
    think_s = quantiles.draw(rng, _THINK_S, turns)
    return DrawnSessions(
        turns=np.diff(first, append=turns),
        opening=quantiles.draw(rng, _OPENING, len(first)),
        text=quantiles.draw(rng, _TEXT, turns),
        answer=quantiles.draw(rng, _ANSWER, turns),
        wait_s=np.where(asks, think_s, tools_s),
    )
