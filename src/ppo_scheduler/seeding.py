"""One random world per seed: every stream is spawned from ``training.seed``.

A stream is addressed by (run seed, episode, environment, purpose), so the numbers a purpose
draws depend neither on what other purposes drew before nor on how a run is cut into chunks.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. Values are part of the seed: append, never renumber."""

    WORKLOAD = 1
    EVALUATION_WORKLOAD = 2
    DEMONSTRATION_WORKLOAD = 3
    SCHEDULER = 4
    NETWORK_INIT = 5
    ACTION_SAMPLING = 6
    MINIBATCH_ORDER = 7
    BEHAVIOUR_CLONING = 8
    BOOTSTRAP = 9
    VALIDATION_WORKLOAD = 10
    DEMONSTRATION_CHOICES = 11
    BRANCH_WORKLOAD = 12
    BRANCH_CHOICES = 13
    TERMINAL_VALUE = 14
    PERMUTATION = 15


def seed_sequence(
    seed: int, purpose: Purpose, *, episode: int = 0, environment: int = 0
) -> np.random.SeedSequence:
    """Return the seed sequence of one stream.

    All four numbers must be non-negative; equal addresses give equal streams.
    """
    return np.random.SeedSequence(entropy=seed, spawn_key=(episode, environment, int(purpose)))


def generator(
    seed: int, purpose: Purpose, *, episode: int = 0, environment: int = 0
) -> np.random.Generator:
    """Return the NumPy generator (PCG64) of one stream."""
    return np.random.Generator(
        np.random.PCG64(seed_sequence(seed, purpose, episode=episode, environment=environment))
    )


def torch_seed(seed: int, purpose: Purpose) -> int:
    """Return a 63-bit seed for a ``torch.Generator`` of this purpose."""
    word = seed_sequence(seed, purpose).generate_state(1, dtype=np.uint64)[0]
    return int(word) >> 1
