"""The arrays of one decision: what is seen, and what is remembered from the decisions before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidur_ext.env import columns
from vidur_ext.env.history import new_history
from vidur_ext.env.snapshot import ROWS

Floats = NDArray[np.float64]


class Sight(NamedTuple):
    """What is seen at one decision; see ``columns`` for what stands where.

    table [len(ROWS), R], queues [R, K, 3] (absent requests are zeros), interval [7], request [2],
    predicted [2, R]: times to first token and end to end [s] of the arriving request.
    """

    table: Floats
    queues: Floats
    interval: Floats
    request: Floats
    predicted: Floats


# Entries of Memory.numbers.
(
    GAP,
    LATENCY,
    TTFT,
    COMPLETION_RATE,
    MEAN_LATENCY,
    THROUGHPUT_EMA,
    LATENCY_EMA,
    PREVIOUS_SCORE,
) = range(8)
"""GAP: between arrivals [s]; LATENCY, TTFT: of completions [s], NaN before the first;
COMPLETION_RATE: completions per arrival. The others are the reward's: mean latency of the last
interval with completions [s], averages of its two terms, and the score, NaN before the first."""


class Memory(NamedTuple):
    """What an episode's decisions so far have left behind.

    numbers [8]; outstanding [8, R] and qps [8, 1] are histories.
    """

    numbers: Floats
    outstanding: Floats
    qps: Floats


def new_sight(num_replicas: int, queue_slots: int) -> Sight:
    return Sight(
        table=np.zeros((len(ROWS), num_replicas)),
        queues=np.zeros((num_replicas, queue_slots, columns.NUM_QUEUE_COLUMNS)),
        interval=np.zeros(columns.NUM_INTERVAL_ENTRIES),
        request=np.zeros(columns.NUM_REQUEST_ENTRIES),
        predicted=np.zeros((2, num_replicas)),
    )


def new_memory(num_replicas: int) -> Memory:
    """Return the memory at the beginning of an episode."""
    numbers = np.zeros(8)
    numbers[[LATENCY, TTFT, PREVIOUS_SCORE]] = np.nan
    return Memory(numbers, new_history(num_replicas), new_history(1))
