"""Compiled: the order in which a session would take the replicas, by a hash.

The replica with the largest hash of the pair comes first (Thaler and Ravishankar 1998): where one
replica is taken away or added, only the sessions change theirs that were on it or go to it.
"""

from __future__ import annotations

import numpy as np

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats

_32_BITS = np.uint64(0xFFFFFFFF)
_SESSION, _REPLICA = np.uint64(0x9E3779B1), np.uint64(0x85EBCA77)
_FIRST, _SECOND = np.uint64(0x85EBCA6B), np.uint64(0xC2B2AE35)


@compiled
def _mixed(word: np.uint64) -> np.uint64:
    """Return 32 bits all of which depend on all 32 bits of the word: the end of MurmurHash3."""
    word = ((word ^ (word >> np.uint64(16))) * _FIRST) & _32_BITS
    word = ((word ^ (word >> np.uint64(13))) * _SECOND) & _32_BITS
    return word ^ (word >> np.uint64(16))


@compiled
def order_by_hash(session: float, scores: Floats) -> None:
    """Score the replicas [R]: the lightest one is the session's first.

    Args:
        session: a number below 2^32.
    """
    own = _mixed((np.uint64(np.int64(session)) * _SESSION) & _32_BITS)
    for replica in range(len(scores)):
        other = _mixed((np.uint64(replica + 1) * _REPLICA) & _32_BITS)
        scores[replica] = -float(_mixed(own ^ other))
