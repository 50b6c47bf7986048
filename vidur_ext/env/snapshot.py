"""The cluster as a router sees it at one instant: one column of numbers per replica."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
