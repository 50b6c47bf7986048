"""Compiled: how long outputs will be, learned from the completed requests; no oracle.

An output that has g tokens so far will have E[L | L > g, prompt] in the end. Completed outputs are
counted by their own length and by the length of their prompts, in bins that divide each octave. A
bin of prompts begins at what all prompts together say, and these at an exponential prior, whose
conditional mean is g + mean.
"""

from __future__ import annotations

import math

import numpy as np

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.columns import Column
from vidur_ext.routing.estimator import Estimates

_OCTAVES = 17
"""Of 1 to 2^17 - 1 tokens; what is longer stands with the longest."""

_PROMPT_BINS = 4
_OUTPUT_BINS = 8
"""Bins per octave."""

_TOGETHER = _OCTAVES * _PROMPT_BINS
"""The row of all prompts together, behind those of the bins."""

_BIN_PRIOR_REQUESTS = 4.0
"""What all prompts say weighs as much as so many completed requests of a prompt's own bin."""

_LARGEST_EXPONENT = 700.0

_MANTISSA_BITS, _EXPONENT_BIAS = 52, 1023
"""Of a float64."""


class AtLeast(Column):
    """The last axis of a table of lengths: what was completed in an output's bin or above it."""

    COUNT = "requests", "completed"
    TOKENS = "tokens", "of their outputs together"


def new_lengths() -> Floats:
    """Return the table [prompt bins + 1, output bins + 1, len(AtLeast)] before any completion.

    All its numbers are whole, so tables that learned side by side can be added up.
    """
    return np.zeros((_TOGETHER + 1, _OCTAVES * _OUTPUT_BINS + 1, len(AtLeast)))


@compiled
def _bin(tokens: int, bins_per_octave: int) -> int:
    """Return the bin of at least 1 token: octaves are powers of two, evenly divided."""
    # The exponent of a float, which holds whole numbers of that size exactly.
    exponent = (np.float64(tokens).view(np.int64) >> _MANTISSA_BITS) - _EXPONENT_BIAS
    octave: int = min(int(exponent), _OCTAVES - 1)
    within = ((tokens - (1 << octave)) * bins_per_octave) >> octave
    return octave * bins_per_octave + min(within, bins_per_octave - 1)


@compiled
def learn_length(lengths: Floats, prompt: int, output: int) -> None:
    """Count a completed request."""
    own = _bin(prompt, _PROMPT_BINS)
    for place in range(_bin(output, _OUTPUT_BINS) + 1):
        for row in (own, _TOGETHER):
            lengths[row, place, AtLeast.COUNT] += 1.0
            lengths[row, place, AtLeast.TOKENS] += output


@compiled
def expected_output(lengths: Floats, known: Estimates, prompt: int, generated: int) -> int:
    """Return the tokens that an output with ``generated`` so far will have: at least one more.

    Those that ended in the bin of ``generated`` itself do not count.
    """
    first = _bin(generated, _OUTPUT_BINS) + 1 if generated > 0 else 0
    mean = known.output_sum / known.output_count
    weight = known.output_count * math.exp(-min(generated / mean, _LARGEST_EXPONENT))
    together, alike = lengths[_TOGETHER, first], lengths[_bin(prompt, _PROMPT_BINS), first]
    pooled = (weight * (generated + mean) + together[AtLeast.TOKENS]) / (
        weight + together[AtLeast.COUNT]
    )
    own = (_BIN_PRIOR_REQUESTS * pooled + alike[AtLeast.TOKENS]) / (
        _BIN_PRIOR_REQUESTS + alike[AtLeast.COUNT]
    )
    return max(int(own + 0.5), generated + 1)
