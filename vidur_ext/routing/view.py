"""What is seen of the cluster at one decision, and what is remembered of those before.

R replicas; the first K waiting requests of each are listed. One column of numbers per replica.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidur_ext.compiled import compiled
from vidur_ext.routing import view as columns

ROWS = (
    "waiting",
    "running",
    "decoding",
    "pending_prefill_tokens",
    "context_tokens",
    "generated_tokens",
    "kv_blocks_used",
    "kv_blocks_total",
    "restarts",
    "oldest_wait_s",
    "mean_wait_s",
    "batch_capacity",
    "remaining_output_tokens",
)
"""Rows of ``ClusterSnapshot.table``.

waiting, running: requests without and with KV blocks; decoding: running ones past their prefill;
pending_prefill_tokens: prompt tokens still to be processed; context_tokens: tokens in the KV
cache; generated_tokens: output tokens so far of the running requests; restarts: preemptions
suffered by the requests in flight; batch_capacity: requests one batch may hold;
remaining_output_tokens: known to an oracle only.
"""


@dataclass(frozen=True)
class QueuedRequest:
    """One waiting request: age [s], prompt, processed and remaining prompt tokens."""

    age_s: float
    prompt_tokens: int
    processed_tokens: int

    @property
    def remaining_tokens(self) -> int:
        return self.prompt_tokens - self.processed_tokens


@dataclass(frozen=True)
class ClusterSnapshot:
    """``table`` is float64 [len(ROWS), R]; ``queues`` holds the first waiting requests."""

    now: float
    table: NDArray[np.float64]
    queues: tuple[tuple[QueuedRequest, ...], ...] = ()

    @property
    def num_replicas(self) -> int:
        return self.table.shape[1]

    def row(self, name: str) -> NDArray[np.float64]:
        """Return one row [R] by its name in ``ROWS``."""
        return self.table[_INDEX[name]]

    @property
    def outstanding(self) -> NDArray[np.float64]:
        """Requests on each replica [R], waiting or running."""
        return self.row("waiting") + self.row("running")

    @property
    def kv_used_fraction(self) -> NDArray[np.float64]:
        """Share of each replica's KV blocks in use [R]."""
        return self.row("kv_blocks_used") / self.row("kv_blocks_total")


_INDEX = {name: index for index, name in enumerate(ROWS)}


@dataclass(frozen=True)
class ArrivingRequest:
    """The request to be routed. ``output_tokens`` is the truth: only oracles may read it."""

    arrived_at: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Completion:
    """A finished request's latencies [s]; ``tbt_s`` is 0 for a single output token."""

    e2e_s: float
    ttft_s: float
    tbt_s: float
    output_tokens: int


@dataclass(frozen=True)
class Interval:
    """What happened between two decisions.

    request_seconds: time integral of requests in the system; summed over a run it is exactly the
    sum of all end-to-end latencies. unanswered_seconds: the same for requests without a first
    token, whose sum is the sum of all times to first token.
    """

    duration_s: float
    request_seconds: float
    unanswered_seconds: float
    completions: tuple[Completion, ...]


# Rows of the cluster's table [len(ROWS), R]; see ``snapshot.ROWS``.
(
    WAITING,
    RUNNING,
    DECODING,
    PENDING_PREFILL,
    CONTEXT,
    GENERATED,
    KV_USED,
    KV_TOTAL,
    RESTARTS,
    OLDEST_WAIT,
    MEAN_WAIT,
    BATCH_CAPACITY,
    REMAINING_OUTPUT,
) = range(len(ROWS))

# Columns of a waiting request in the queues [R, K, 3].
AGE, PROMPT, PROCESSED = range(3)
NUM_QUEUE_COLUMNS = 3

# Entries of the interval since the last decision; see ``snapshot.Interval``.
(
    DURATION,
    REQUEST_SECONDS,
    UNANSWERED_SECONDS,
    COMPLETIONS,
    IN_TIME,
    E2E_SUM,
    TTFT_SUM,
) = range(7)
"""COMPLETIONS: requests; IN_TIME: those of them within both objectives; the sums are theirs [s]."""
NUM_INTERVAL_ENTRIES = 7

# Entries of the arriving request.
REQUEST_PROMPT, REQUEST_OUTPUT = range(2)
NUM_REQUEST_ENTRIES = 2


DELTA, EMA, TREND, VARIANCE, PEAK, LOW, _LAST, _SLOW = range(8)
"""Rows of a history: those of ``schema.HISTORY``, then the last value and the slow average."""


def new_history(size: int) -> NDArray[np.float64]:
    """Return the history [8, size] of a quantity that has not been seen yet."""
    history = np.zeros((8, size))
    history[_LAST] = np.nan
    return history


@compiled
def follow(history: NDArray[np.float64], index: int, value: float, alpha: float) -> None:
    """Take the next value of one element."""
    if np.isnan(history[_LAST, index]):
        history[_SLOW, index] = value
        history[EMA, index] = history[PEAK, index] = history[LOW, index] = value
        history[_LAST, index] = value
        return
    history[DELTA, index] = value - history[_LAST, index]
    history[_LAST, index] = value
    error = value - history[EMA, index]
    history[EMA, index] += alpha * error
    average = history[EMA, index]
    history[_SLOW, index] += 0.25 * alpha * (value - history[_SLOW, index])
    history[TREND, index] = average - history[_SLOW, index]
    history[VARIANCE, index] = (1.0 - alpha) * (history[VARIANCE, index] + alpha * error * error)
    peak, low = history[PEAK, index], history[LOW, index]
    history[PEAK, index] = max(value, peak + alpha * (average - peak))
    history[LOW, index] = min(value, low + alpha * (average - low))


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


@dataclass(frozen=True)
class EpisodeEnd:
    """What the last decision of an episode earned until every request was served.

    reward: [B], one per environment; components: [B, K], see ``schema.COMPONENTS``.
    """

    reward: NDArray[np.float64]
    components: NDArray[np.float64]
