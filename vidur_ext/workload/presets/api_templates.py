"""Business calls of an API: single requests that fill in a template of their caller's.

A template is used for a while, most a few times, some hundreds of times: how often follows Zipf's
law. Source: what Wang et al., "KVCache Cache in the Wild", USENIX ATC 2025 (arXiv:2506.02634), say
of reuse in their trace of business traffic. They give no lengths; those here are a choice.
"""

from __future__ import annotations

import numpy as np

from vidur_ext.workload import quantiles
from vidur_ext.workload.drawn_sessions import DrawnSessions, cut_at

SHARED_TOKENS = 0
CONVERSES = False
LONGEST_S = 1800.0

# The share of templates that are used n times falls with (n + 2.5)^-3: Zipf's law in Mandelbrot's
# form, whose head is flatter. Without it, a tenth of the blocks would be nearly all of the reuse.
_USES_OFFSET, _USES_EXPONENT = 2.5, -3.0
_MOST_USES = 4000
_TEMPLATE = {0.0: 40, 0.25: 800, 0.5: 1900, 0.75: 3500, 0.9: 6000, 1.0: 16_000}
_TEXT = {0.0: 8, 0.25: 150, 0.5: 400, 0.75: 900, 0.9: 1800, 1.0: 8000}
_ANSWER = {0.0: 1, 0.25: 30, 0.5: 100, 0.75: 250, 0.9: 500, 1.0: 2000}
_GAP_S = {0.0: 0.05, 0.5: 1.5, 0.8: 10.0, 0.95: 60.0, 1.0: 600.0}


def draw(rng: np.random.Generator, turns: int) -> DrawnSessions:
    """Return the uses of templates, ``turns`` together."""
    weight = (np.arange(1, _MOST_USES + 1) + _USES_OFFSET) ** _USES_EXPONENT
    uses = 1 + np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(turns))
    drawn = cut_at(uses, turns)
    return DrawnSessions(
        turns=drawn,
        opening=quantiles.draw(rng, _TEMPLATE, len(drawn)),
        text=quantiles.draw(rng, _TEXT, turns),
        answer=quantiles.draw(rng, _ANSWER, turns),
        wait_s=quantiles.draw(rng, _GAP_S, turns),
    )
