"""What a router can predict of a request's latency on each replica, from the predictors alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from vidur.entities import Batch

from vidur_ext.routing.view import ClusterSnapshot

Floats = NDArray[np.float64]

_REFERENCE_CONTEXT_TOKENS = 2048
_WHOLE_PROMPT_TOKENS = 1024
_PRIOR_OUTPUT_TOKENS = 128.0
_PRIOR_WEIGHT = 16.0


class _Times(NamedTuple):
    """Of one predictor: iterations of n requests [cap + 1], per context token, of a prefill [s]."""

    base: Floats
    slope: float
    chunk_s: float


class LatencyEstimator:
    """Reads iteration times off each execution-time predictor once, then answers by arithmetic.

    An iteration of n decoding requests with c tokens of context takes about base[n] + slope * c
    seconds: attention reads the whole cache, everything else depends on n alone. Prefill advances
    in full batches of ``prefill_tokens``. Output lengths are unknown to a router: the mean of the
    completed requests stands for them.

    Args:
        replica_schedulers: Vidur's, one per replica, equal but for their predictors and caches.
    """

    def __init__(self, replica_schedulers: Sequence[Any]) -> None:
        config = replica_schedulers[0]._config
        predictors = [scheduler._execution_time_predictor for scheduler in replica_schedulers]
        self._prefill_tokens = _prefill_tokens(config, predictors[0]._config)
        # Replicas of one kind share a predictor, and so its times.
        known: dict[int, _Times] = {}
        for scheduler, predictor in zip(replica_schedulers, predictors, strict=True):
            if id(predictor) not in known:
                known[id(predictor)] = _times(scheduler, self._prefill_tokens)
        times = [known[id(predictor)] for predictor in predictors]
        self._replicas = np.arange(len(times))
        self._base = _read_only([one.base for one in times])
        self._slope = _read_only([one.slope for one in times])
        self._chunk_s = _read_only([one.chunk_s for one in times])
        self._output_sum = _PRIOR_OUTPUT_TOKENS * _PRIOR_WEIGHT
        self._output_count = _PRIOR_WEIGHT

    @property
    def base(self) -> Floats:
        """Seconds of an iteration of n requests without context [R, cap + 1]."""
        return self._base

    @property
    def slope(self) -> Floats:
        """Seconds that a token of context adds to an iteration [R]."""
        return self._slope

    @property
    def chunk_s(self) -> Floats:
        """Seconds of a full batch of prompt tokens [R]."""
        return self._chunk_s

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens of a full batch."""
        return self._prefill_tokens

    @property
    def output_sum(self) -> float:
        """Output tokens of the completed requests and the prior."""
        return self._output_sum

    @property
    def output_count(self) -> float:
        """Completed requests and the prior's weight."""
        return self._output_count

    @property
    def mean_output_tokens(self) -> float:
        """Mean output length of the completed requests, begun at a prior."""
        return self._output_sum / self._output_count

    @property
    def prefill_s_per_token(self) -> Floats:
        """Seconds per prompt token when batches are full [R]."""
        return self._chunk_s / self._prefill_tokens

    @property
    def decode_token_s(self) -> Floats:
        """Seconds per output token when batches are full [R]."""
        return self._base[:, -1] / (self._base.shape[1] - 1)

    def learn_output_length(self, output_tokens: int) -> None:
        """Let a completed request's output length count."""
        self._output_sum += output_tokens
        self._output_count += 1.0

    def decode_iteration_s(self, snapshot: ClusterSnapshot) -> Floats:
        """Return the time of one decode iteration with one request more, per replica [R]."""
        batch = np.minimum(snapshot.row("running") + 1.0, self._base.shape[1] - 1.0)
        base = self._base[self._replicas, batch.astype(np.intp)]
        return base + self._slope * snapshot.row("context_tokens")

    def ttft_s(self, snapshot: ClusterSnapshot, prompt_tokens: int) -> Floats:
        """Return the predicted time to first token per replica [R]."""
        backlog = snapshot.row("pending_prefill_tokens") + prompt_tokens
        room = np.maximum(self._prefill_tokens - snapshot.row("decoding"), 1.0)
        iteration = self._chunk_s + self._slope * snapshot.row("context_tokens")
        return np.ceil(backlog / room) * iteration

    def ttft_and_latency_s(
        self, snapshot: ClusterSnapshot, prompt_tokens: int
    ) -> tuple[Floats, Floats]:
        """Return the predicted times to first token and end to end, per replica [R]."""
        ttft = self.ttft_s(snapshot, prompt_tokens)
        return ttft, ttft + self.mean_output_tokens * self.decode_iteration_s(snapshot)

    def latency_s(self, snapshot: ClusterSnapshot, prompt_tokens: int) -> Floats:
        """Return the predicted end-to-end latency per replica [R]."""
        return self.ttft_and_latency_s(snapshot, prompt_tokens)[1]

    def remaining_work_s(self, snapshot: ClusterSnapshot) -> Floats:
        """Return the work left on each replica [R] [s]. Oracle: uses true output lengths."""
        return (
            snapshot.row("pending_prefill_tokens") * self.prefill_s_per_token
            + snapshot.row("remaining_output_tokens") * self.decode_token_s
        )


def _times(scheduler: Any, prefill_tokens: int) -> _Times:
    cap = scheduler._config.batch_size_cap
    # Tables may end early; a batch beyond them is an error when it comes, not here.
    largest = min(cap, scheduler._execution_time_predictor._config.prediction_max_batch_size)
    sizes = sorted({1, *range(8, largest, 8), largest})
    base = np.interp(
        np.arange(cap + 1), sizes, [_seconds(scheduler, [1] * n, [1] * n) for n in sizes]
    )
    many, context = min(32, largest), _context_tokens(scheduler._execution_time_predictor._config)
    with_context = _seconds(scheduler, [1] * many, [context] * many)
    slope = (with_context - float(base[many])) / (many * context)
    return _Times(base, slope, _seconds(scheduler, [prefill_tokens], [prefill_tokens]))


def _seconds(scheduler: Any, num_q_tokens: list[int], num_kv_tokens: list[int]) -> float:
    batch = Batch(scheduler._replica_id, [None] * len(num_q_tokens), num_q_tokens, num_kv_tokens)
    predictor = scheduler._execution_time_predictor
    return sum(
        predictor.get_execution_time(batch, stage).total_time
        for stage in range(scheduler._num_stages)
    )


def _context_tokens(tables: Any) -> int:
    """Return the context to measure with: the tables of a predictor's config may end early."""
    step = tables.kv_cache_prediction_granularity
    fitting = tables.prediction_max_tokens_per_request // step * step
    return int(max(min(_REFERENCE_CONTEXT_TOKENS, fitting), 1))


def _prefill_tokens(config: Any, tables: Any) -> int:
    """Return the prompt tokens of a full batch, or of the longest prompt that the tables hold."""
    full = _WHOLE_PROMPT_TOKENS
    for name in ("chunk_size", "max_tokens_in_batch"):
        if hasattr(config, name):
            full = int(getattr(config, name))
            break
    return int(
        min(
            full,
            tables.prediction_max_prefill_chunk_size,
            tables.prediction_max_tokens_per_request,
        )
    )


def _read_only(rows: Sequence[Any]) -> Floats:
    array = np.array(rows, dtype=np.float64)
    array.flags.writeable = False
    return array
