"""What a router can predict of a request's latency on each replica, from the predictor alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from vidur.entities import Batch

from vidur_ext.env.snapshot import ClusterSnapshot

_REFERENCE_CONTEXT_TOKENS = 2048
_WHOLE_PROMPT_TOKENS = 1024
_PRIOR_OUTPUT_TOKENS = 128.0
_PRIOR_WEIGHT = 16.0


class LatencyEstimator:
    """Reads iteration times off an execution-time predictor once, then answers by arithmetic.

    An iteration of n decoding requests with c tokens of context takes about base[n] + slope * c
    seconds: attention reads the whole cache, everything else depends on n alone. Prefill advances
    in full batches of ``prefill_tokens``. Output lengths are unknown to a router: the mean of the
    completed requests stands for them.
    """

    def __init__(self, replica_scheduler: Any) -> None:
        config = replica_scheduler._config
        self._predictor = replica_scheduler._execution_time_predictor
        self._stages = replica_scheduler._num_stages
        self._replica_id = replica_scheduler._replica_id
        cap = config.batch_size_cap
        self._prefill_tokens = _prefill_tokens(config)
        context = _REFERENCE_CONTEXT_TOKENS
        sizes = sorted({1, *range(8, cap, 8), cap})
        base = [self._seconds([1] * n, [1] * n) for n in sizes]
        self._base = np.interp(np.arange(cap + 1), sizes, base)
        many = min(32, cap)
        with_context = self._seconds([1] * many, [context] * many)
        without = float(self._base[many])
        self._slope = (with_context - without) / (many * context)
        self._chunk_s = self._seconds([self._prefill_tokens], [self._prefill_tokens])
        self._output_sum = _PRIOR_OUTPUT_TOKENS * _PRIOR_WEIGHT
        self._output_count = _PRIOR_WEIGHT

    @property
    def mean_output_tokens(self) -> float:
        """Mean output length of the completed requests, begun at a prior."""
        return self._output_sum / self._output_count

    @property
    def prefill_s_per_token(self) -> float:
        """Seconds per prompt token when batches are full."""
        return self._chunk_s / self._prefill_tokens

    def learn_output_length(self, output_tokens: int) -> None:
        """Let a completed request's output length count."""
        self._output_sum += output_tokens
        self._output_count += 1.0

    def decode_iteration_s(self, snapshot: ClusterSnapshot) -> NDArray[np.float64]:
        """Return the time of one decode iteration with one request more, per replica [R]."""
        batch = np.minimum(snapshot.row("running") + 1.0, len(self._base) - 1.0).astype(np.intp)
        return self._base[batch] + self._slope * snapshot.row("context_tokens")

    def ttft_s(self, snapshot: ClusterSnapshot, prompt_tokens: int) -> NDArray[np.float64]:
        """Return the predicted time to first token per replica [R]."""
        backlog = snapshot.row("pending_prefill_tokens") + prompt_tokens
        room = np.maximum(self._prefill_tokens - snapshot.row("decoding"), 1.0)
        iteration = self._chunk_s + self._slope * snapshot.row("context_tokens")
        return np.ceil(backlog / room) * iteration

    def ttft_and_latency_s(
        self, snapshot: ClusterSnapshot, prompt_tokens: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the predicted times to first token and end to end, per replica [R]."""
        ttft = self.ttft_s(snapshot, prompt_tokens)
        return ttft, ttft + self.mean_output_tokens * self.decode_iteration_s(snapshot)

    def latency_s(self, snapshot: ClusterSnapshot, prompt_tokens: int) -> NDArray[np.float64]:
        """Return the predicted end-to-end latency per replica [R]."""
        return self.ttft_and_latency_s(snapshot, prompt_tokens)[1]

    def remaining_work_s(self, snapshot: ClusterSnapshot) -> NDArray[np.float64]:
        """Return the work left on each replica [R] [s]. Oracle: uses true output lengths."""
        decode_token_s = self._base[-1] / (len(self._base) - 1)
        return (
            snapshot.row("pending_prefill_tokens") * self.prefill_s_per_token
            + snapshot.row("remaining_output_tokens") * decode_token_s
        )

    def _seconds(self, num_q_tokens: list[int], num_kv_tokens: list[int]) -> float:
        batch = Batch(self._replica_id, [None] * len(num_q_tokens), num_q_tokens, num_kv_tokens)
        return sum(
            self._predictor.get_execution_time(batch, stage).total_time
            for stage in range(self._stages)
        )


def _prefill_tokens(config: Any) -> int:
    """Return how many prompt tokens a full batch advances under a replica scheduler's config."""
    for name in ("chunk_size", "max_tokens_in_batch"):
        if hasattr(config, name):
            return int(getattr(config, name))
    return _WHOLE_PROMPT_TOKENS
