"""Numbers drawn from a few quantiles of their distribution."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Tokens = NDArray[np.int64]


def at_ranks(ranks: ArrayLike, known: ArrayLike, values: ArrayLike) -> Floats:
    """Return the values at ``ranks``, interpolated in their logarithm between the known ones."""
    return np.exp(np.interp(np.asarray(ranks), np.asarray(known), np.log(values)))


def draw(rng: np.random.Generator, quantiles: Mapping[float, float], count: int) -> Floats:
    """Return ``count`` numbers of a distribution, given by ascending ranks from 0 to 1."""
    return at_ranks(rng.random(count), list(quantiles), list(quantiles.values()))


def whole(tokens: Floats) -> Tokens:
    """Return token counts, at least 1 each."""
    return np.maximum(np.rint(tokens), 1.0).astype(np.int64)
