"""Requests that are longer than the model's context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]


class LimitedTokens(NamedTuple):
    """Token counts [N] that fit, and how many requests had to be cut."""

    prefill: Tokens
    decode: Tokens
    num_cut: int


def limit_tokens(prefill: Tokens, decode: Tokens, max_tokens: int) -> LimitedTokens:
    """Cut requests so that prompt + output <= ``max_tokens`` (at least 2).

    The output decides how long a request occupies a replica, so it is kept where possible: it is
    cut to max_tokens - 1 only, and the prompt gives way to the rest.
    """
    assert max_tokens >= 2
    num_cut = int(np.count_nonzero(prefill + decode > max_tokens))
    decode = np.minimum(decode, max_tokens - 1)
    return LimitedTokens(np.minimum(prefill, max_tokens - decode), decode, num_cut)
