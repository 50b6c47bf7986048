"""Conversations of a chat service, as in Mooncake's conversation trace.

One system prompt for all; most sessions are a single question with a long document, those that go
on begin with shorter ones. Source: the statistics of the 12,031 requests of the conversation trace
of Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025.
"""

from __future__ import annotations

import numpy as np

from vidur_ext.workload import quantiles
from vidur_ext.workload.drawn_sessions import DrawnSessions, cut_at
from vidur_ext.workload.sessions import NOMINAL_TOKEN_S

SHARED_TOKENS = 512
CONVERSES = True
LONGEST_S = 7200.0
"""Longer than any in the trace, which lasts an hour: few gaps have to be shortened."""

# Share of the sessions with at least so many turns.
_SURVIVAL = {
    1: 1.0, 2: 0.248, 3: 0.125, 4: 0.077, 5: 0.053, 6: 0.037, 7: 0.0265, 8: 0.0185, 9: 0.0094,
    13: 0.0044, 20: 0.0016, 30: 0.0006, 43: 0.00014,
}  # fmt: skip
_ANSWER = {0.0: 1, 0.05: 20, 0.25: 170, 0.5: 350, 0.75: 460, 0.9: 597, 0.99: 1050, 1.0: 2000}
_TEXT = {0.0: 4, 0.25: 20, 0.5: 53, 0.75: 254, 0.9: 4400, 0.97: 7800, 1.0: 30_000}
# From arrival to arrival, as the trace has it.
_GAP_S = {0.0: 22, 0.1: 42, 0.25: 66, 0.5: 123, 0.75: 264, 0.9: 483, 0.99: 1482, 1.0: 2400}
# Openings of sessions with one turn, and of the others. Prompts get longer with every turn; these
# two make all of them together as long as those of the trace.
_SINGLE = {
    0.0: 20, 0.1: 740, 0.25: 1770, 0.5: 4640, 0.75: 12_200, 0.9: 29_000, 0.97: 68_000, 1.0: 120_000,
}  # fmt: skip
_CONTINUED = {
    0.0: 40, 0.1: 770, 0.25: 1460, 0.5: 2960, 0.75: 6010, 0.9: 11_400, 0.99: 34_000, 1.0: 100_000,
}  # fmt: skip
# Share of the gaps that are as long among gaps as their session's opening is among openings: users
# of long documents take longer, which is why a cache keeps less than gaps alone would have it.
_SLOW_READERS = 0.3


def draw(rng: np.random.Generator, turns: int) -> DrawnSessions:
    """Return sessions of ``turns`` turns together."""
    counts = np.arange(1, max(_SURVIVAL) + 1)
    at_least = quantiles.at_ranks(counts, list(_SURVIVAL), list(_SURVIVAL.values()))
    drawn = cut_at(np.searchsorted(-at_least, -rng.random(turns)), turns)
    rank = rng.random(len(drawn))
    single, continued = (
        quantiles.at_ranks(rank, list(known), list(known.values()))
        for known in (_SINGLE, _CONTINUED)
    )
    reads = rng.random(turns) < _SLOW_READERS
    gap_rank = np.where(reads, np.repeat(rank, drawn), rng.random(turns))
    answer = quantiles.draw(rng, _ANSWER, turns)
    gap_s = quantiles.at_ranks(gap_rank, list(_GAP_S), list(_GAP_S.values()))
    answered_s = NOMINAL_TOKEN_S * np.concatenate([np.zeros(1), answer[:-1]])
    return DrawnSessions(
        turns=drawn,
        opening=np.where(drawn == 1, single, continued),
        text=quantiles.draw(rng, _TEXT, turns),
        answer=answer,
        wait_s=np.maximum(gap_s - answered_s, 0.0),
    )
