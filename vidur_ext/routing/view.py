"""What is seen of the cluster at one decision, and what is remembered of those before.

R replicas; the first K waiting requests of each are listed. One column of numbers per replica.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.columns import Column, record


class Quantity(Column):
    """What a router sees of each replica: the rows of ``ClusterSnapshot.table``."""

    WAITING = "requests", "without KV blocks"
    RUNNING = "requests", "with KV blocks"
    DECODING = "requests", "running ones past their prefill"
    PENDING_PREFILL_TOKENS = "tokens", "of prompts, still to be processed"
    UNCACHED_PREFILL_TOKENS = "tokens", "pending, less those of waiting prompts expected cached"
    CONTEXT_TOKENS = "tokens", "in the KV cache"
    GENERATED_TOKENS = "tokens", "output so far of the running requests"
    KV_BLOCKS_USED = "blocks", "of the KV cache that are taken"
    KV_BLOCKS_TOTAL = "blocks", "of the KV cache"
    RESTARTS = "preemptions", "suffered by the requests in flight"
    OLDEST_WAIT_S = "s", "age of the oldest waiting request, 0 without one"
    MEAN_WAIT_S = "s", "mean age of the waiting requests, 0 without one"
    BATCH_CAPACITY = "requests", "one batch may hold, as the replica scheduler's config says"
    REMAINING_OUTPUT_TOKENS = "tokens", "still to be generated: known to an oracle only"


class Queued(Column):
    """What is seen of one waiting request: the last axis of ``Sight.queues``."""

    AGE_S = "s", "since its arrival"
    PROMPT_TOKENS = "tokens", "of its prompt"


class Elapsed(Column):
    """What happened since the last decision: the entries of ``Sight.interval``."""

    DURATION_S = "s", "since the last decision"
    REQUEST_SECONDS = "request s", "time integral of the requests in the system"
    UNANSWERED_SECONDS = "request s", "time integral of the requests without a first token"
    COMPLETIONS = "requests", "that were completed"
    IN_TIME = "requests", "of these, within both objectives"
    E2E_SUM_S = "s", "sum of the completed requests' end-to-end latencies"
    TTFT_SUM_S = "s", "sum of the completed requests' times to first token"


class Arriving(Column):
    """What is known of the request to be routed: the entries of ``Sight.request``."""

    PROMPT_TOKENS = "tokens", "of its prompt"
    EXPECTED_OUTPUT_TOKENS = "tokens", "of output: the mean of the completed requests"
    OUTPUT_TOKENS = "tokens", "it will generate: known to an oracle only"
    SESSION = "", "number of the session it belongs to; see ``workload.routed_sessions``"
    SESSION_REPLICA = "replica", "that the session's request before it was sent to, -1 without one"


class Predicted(Column):
    """What is predicted of each replica: the rows of ``Sight.predicted``."""

    FOUND_TOKENS = "tokens", "of the arriving prompt, expected in its prefix cache"
    FOUND_IN_USE_TOKENS = "tokens", "of the found ones, in blocks that running requests use"
    TTFT_S = "s", "time to first token of the arriving request"
    LATENCY_S = "s", "end to end of the arriving request"
    REMAINING_WORK_S = "s", "that the requests here still take: known to an oracle only"


class Past(Column):
    """What is known of a quantity's past: the rows of a history."""

    DELTA = "", "change since the last decision"
    EMA = "", "exponential moving average"
    TREND = "", "fast minus slow average"
    VARIANCE = "", "exponentially weighted"
    PEAK = "", "largest value, decaying towards the average"
    LOW = "", "smallest value, rising towards the average"
    LAST = "", "the last value, NaN before the first"
    SLOW = "", "the slow average"


class Remembered(Column):
    """What is remembered of the decisions so far: the entries of ``Memory.numbers``."""

    GAP_S = "s", "recent time between arrivals"
    LATENCY_S = "s", "recent latency of completions, NaN before the first"
    TTFT_S = "s", "recent time to first token of completions, NaN before the first"
    COMPLETION_RATE = "requests", "recent completions per arrival"
    MEAN_LATENCY_S = "s", "of the last interval with completions, for the reward"
    THROUGHPUT_EMA = "", "average of the reward's throughput term"
    LATENCY_EMA = "", "average of the reward's latency term"
    PREVIOUS_SCORE = "", "the reward's last score, NaN before the first"


@dataclass(frozen=True)
class QueuedRequest:
    """One waiting request: age [s] and prompt tokens, of which none is processed."""

    age_s: float
    prompt_tokens: int


@dataclass(frozen=True)
class ClusterSnapshot:
    """``table`` is float64 [len(Quantity), R]; ``queues`` holds the first waiting requests."""

    now: float
    table: NDArray[np.float64]
    queues: tuple[tuple[QueuedRequest, ...], ...] = ()

    @property
    def num_replicas(self) -> int:
        return self.table.shape[1]

    def row(self, name: str) -> NDArray[np.float64]:
        """Return one row [R] by the name of its ``Quantity``, in lower case."""
        return self.table[Quantity[name.upper()]]

    @property
    def outstanding(self) -> NDArray[np.float64]:
        """Requests on each replica [R], waiting or running."""
        return self.row("waiting") + self.row("running")

    @property
    def kv_used_fraction(self) -> NDArray[np.float64]:
        """Share of each replica's KV blocks in use [R]."""
        return self.row("kv_blocks_used") / self.row("kv_blocks_total")


@dataclass(frozen=True)
class ArrivingRequest:
    """The request to be routed. ``output_tokens`` is the truth: only oracles may read it.

    expected_output_tokens: the mean of the completed requests, begun at a prior. found_tokens [R]:
    of its prompt, expected in each replica's prefix cache, and found_in_use_tokens [R]: see
    ``Predicted``; None: nothing is known of them. session, session_replica: see ``Arriving``.
    """

    arrived_at: float
    prompt_tokens: int
    expected_output_tokens: float
    output_tokens: int
    found_tokens: NDArray[np.float64] | None = None
    found_in_use_tokens: NDArray[np.float64] | None = None
    session: int = 0
    session_replica: int = -1


@dataclass(frozen=True)
class Completion:
    """A finished request's latencies [s]; ``tbt_s`` is 0 for a single output token."""

    e2e_s: float
    ttft_s: float
    tbt_s: float
    output_tokens: int


@dataclass(frozen=True)
class SinceLastDecision:
    """What happened between two decisions.

    request_seconds: time integral of requests in the system; summed over a run it is exactly the
    sum of all end-to-end latencies. unanswered_seconds: the same for requests without a first
    token, whose sum is the sum of all times to first token.
    """

    duration_s: float
    request_seconds: float
    unanswered_seconds: float
    completions: tuple[Completion, ...]


def new_history(size: int) -> NDArray[np.float64]:
    """Return the history [len(Past), size] of a quantity that has not been seen yet."""
    history = np.zeros((len(Past), size))
    history[Past.LAST] = np.nan
    return history


@compiled
def follow(history: NDArray[np.float64], index: int, value: float, alpha: float) -> None:
    """Take the next value of one element."""
    if np.isnan(history[Past.LAST, index]):
        history[Past.SLOW, index] = value
        history[Past.EMA, index] = history[Past.PEAK, index] = history[Past.LOW, index] = value
        history[Past.LAST, index] = value
        return
    history[Past.DELTA, index] = value - history[Past.LAST, index]
    history[Past.LAST, index] = value
    error = value - history[Past.EMA, index]
    history[Past.EMA, index] += alpha * error
    average = history[Past.EMA, index]
    history[Past.SLOW, index] += 0.25 * alpha * (value - history[Past.SLOW, index])
    history[Past.TREND, index] = average - history[Past.SLOW, index]
    history[Past.VARIANCE, index] = (1.0 - alpha) * (
        history[Past.VARIANCE, index] + alpha * error * error
    )
    peak, low = history[Past.PEAK, index], history[Past.LOW, index]
    history[Past.PEAK, index] = max(value, peak + alpha * (average - peak))
    history[Past.LOW, index] = min(value, low + alpha * (average - low))


class Sight(NamedTuple):
    """What is seen at one decision.

    table [len(Quantity), R], queues [R, K, len(Queued)] (absent requests are zeros), interval
    [len(Elapsed)], request [len(Arriving)], predicted [len(Predicted), R].
    """

    table: Floats
    queues: Floats
    interval: Floats
    request: Floats
    predicted: Floats


SeenReplica = record("SeenReplica", Quantity)
Prediction = record("Prediction", Predicted)
SeenRequest = record("SeenRequest", Arriving)


class Seen(NamedTuple):
    """One replica at one decision, as compiled code reads it by name.

    replica: every ``Quantity``, e.g. ``seen.replica.waiting``; predicted: every ``Predicted``;
    request: ``Arriving``, the same for all replicas.
    """

    replica: Any
    predicted: Any
    request: Any


@compiled
def write_column(record: Any, index: int, out: Floats) -> None:
    """Write a replica's record into its column of a table [len(record), R]."""
    for row, value in enumerate(record):
        out[row, index] = value


@compiled
def write_entries(record: Any, out: Floats) -> None:
    """Write a record into an array [len(record)]."""
    for row, value in enumerate(record):
        out[row] = value


class Memory(NamedTuple):
    """What an episode's decisions so far have left behind.

    numbers [len(Remembered)]; outstanding [len(Past), R] and qps [len(Past), 1] are histories.
    """

    numbers: Floats
    outstanding: Floats
    qps: Floats


def new_sight(num_replicas: int, queue_slots: int) -> Sight:
    return Sight(
        table=np.zeros((len(Quantity), num_replicas)),
        queues=np.zeros((num_replicas, queue_slots, len(Queued))),
        interval=np.zeros(len(Elapsed)),
        request=np.zeros(len(Arriving)),
        predicted=np.zeros((len(Predicted), num_replicas)),
    )


def new_memory(num_replicas: int) -> Memory:
    """Return the memory at the beginning of an episode."""
    numbers = np.zeros(len(Remembered))
    numbers[[Remembered.LATENCY_S, Remembered.TTFT_S, Remembered.PREVIOUS_SCORE]] = np.nan
    return Memory(numbers, new_history(num_replicas), new_history(1))


@dataclass(frozen=True)
class Earned:
    """What a decision earned until the next one, or the last one until every request was served.

    reward: [B], one per environment; components: [B, K], see ``components.COMPONENTS``.
    """

    reward: NDArray[np.float64]
    components: NDArray[np.float64]
