"""Follows every request in flight inside Vidur, from the router's side.

One pass over the requests in flight per decision yields both the snapshot that policies choose
on and the interval that rewards are computed from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ppo_scheduler.observation import Floats
from vidur_ext.routing.view import (
    ClusterSnapshot,
    Completion,
    Quantity,
    QueuedRequest,
    SinceLastDecision,
)
from vidur_ext.vidur.estimates import request_overhead_s
from vidur_ext.vidur.vllm_v1_replica import usable_blocks


class Observed(NamedTuple):
    """The cluster at an instant, and what happened since the instant before."""

    snapshot: ClusterSnapshot
    interval: SinceLastDecision


class RequestTracker:
    """Keeps the requests in flight per replica and the time of the last observation."""

    def __init__(self, replica_schedulers: Sequence[Any]) -> None:
        self.queue_slots = 0
        """Waiting requests per replica that a snapshot lists."""
        self._schedulers = replica_schedulers
        self._overheads = [
            request_overhead_s(scheduler._execution_time_predictor)
            for scheduler in replica_schedulers
        ]
        self._in_flight: list[list[Any]] = [[] for _ in replica_schedulers]
        self._output_tokens: dict[int, int] = {}
        self._found_tokens: dict[int, int] = {}
        """By request in flight, of its prompt, where the router expected any to be found."""
        self._last_time: float | None = None

    def assign(self, replica: int, request: Any, found_tokens: int = 0) -> None:
        """Count ``request`` to a replica from now on.

        Args:
            found_tokens: of its prompt, expected in the replica's prefix cache.
        """
        self._in_flight[replica].append(request)
        if found_tokens:
            self._found_tokens[request._id] = found_tokens
        self._output_tokens[request._id] = request._num_decode_tokens

    def observe(self, now: float) -> Observed:
        """Return the cluster at ``now`` and what happened since the last call."""
        last = now if self._last_time is None else self._last_time
        self._last_time = now
        table = np.full((len(Quantity), len(self._schedulers)), np.nan)
        queues: list[tuple[QueuedRequest, ...]] = []
        completions: list[Completion] = []
        request_seconds = unanswered_seconds = 0.0
        for replica, scheduler in enumerate(self._schedulers):
            column = table[:, replica]
            column[Quantity.KV_BLOCKS_USED] = scheduler._num_allocated_blocks
            column[Quantity.KV_BLOCKS_TOTAL] = usable_blocks(scheduler)
            column[Quantity.BATCH_CAPACITY] = scheduler._config.batch_size_cap
            queue, sums = self._scan(replica, now, last, column, completions)
            queues.append(queue)
            request_seconds += sums[0]
            unanswered_seconds += sums[1]
        assert not np.isnan(table).any(), "every quantity is to be written, for every replica"
        snapshot = ClusterSnapshot(now, table, tuple(queues))
        interval = SinceLastDecision(
            now - last, request_seconds, unanswered_seconds, tuple(completions)
        )
        return Observed(snapshot, interval)

    def _scan(
        self,
        replica: int,
        now: float,
        last: float,
        column: Floats,
        completions: list[Completion],
    ) -> tuple[tuple[QueuedRequest, ...], tuple[float, float]]:
        """Read every request of one replica into its column, and forget the completed ones.

        Returns the first waiting requests, and the request and unanswered seconds since ``last``.
        Hot: plain locals, one pass, no properties.
        """
        alive: list[Any] = []
        queue: list[QueuedRequest] = []
        waiting = decoding = pending = context = generated = restarts = spared = 0
        oldest = wait_sum = request_seconds = unanswered_seconds = 0.0
        total_output = 0
        overhead_s = self._overheads[replica]
        for request in self._in_flight[replica]:
            arrived = request._arrived_at
            begin = arrived if arrived > last else last
            answered_at = request._prefill_completed_at
            if answered_at == 0.0:
                unanswered_seconds += now - begin
            elif answered_at > begin:
                unanswered_seconds += answered_at + overhead_s - begin
            if request._completed:
                request_seconds += request._completed_at + overhead_s - begin
                completions.append(self._completion(request, overhead_s))
                continue
            request_seconds += now - begin
            alive.append(request)
            processed = request._num_processed_tokens
            prefill = request._num_prefill_tokens
            restarts += request._num_restarts
            total_output += prefill + request._num_decode_tokens - processed
            if not request._scheduled:
                age = now - arrived
                waiting += 1
                pending += prefill
                if not request._num_restarts:
                    spared += self._found_tokens.get(request._id, 0)
                wait_sum += age
                oldest = max(oldest, age)
                if len(queue) < self.queue_slots:
                    queue.append(QueuedRequest(age, prefill))
            elif request._is_prefill_complete:
                decoding += 1
                context += processed
                generated += processed - prefill
            else:
                pending += prefill - processed
                context += processed
        self._in_flight[replica] = alive
        column[Quantity.WAITING] = waiting
        column[Quantity.RUNNING] = len(alive) - waiting
        column[Quantity.DECODING] = decoding
        column[Quantity.PENDING_PREFILL_TOKENS] = pending
        column[Quantity.UNCACHED_PREFILL_TOKENS] = pending - spared
        column[Quantity.CONTEXT_TOKENS] = context
        column[Quantity.GENERATED_TOKENS] = generated
        column[Quantity.RESTARTS] = restarts
        column[Quantity.OLDEST_WAIT_S] = oldest
        column[Quantity.MEAN_WAIT_S] = wait_sum / waiting if waiting else 0.0
        column[Quantity.REMAINING_OUTPUT_TOKENS] = total_output - pending
        return tuple(queue), (request_seconds, unanswered_seconds)

    def _completion(self, request: Any, overhead_s: float) -> Completion:
        output_tokens = self._output_tokens.pop(request._id)
        self._found_tokens.pop(request._id, None)
        decode_s = request._completed_at - request._prefill_completed_at
        return Completion(
            e2e_s=request._completed_at + overhead_s - request._arrived_at,
            ttft_s=request._prefill_completed_at + overhead_s - request._arrived_at,
            tbt_s=decode_s / (output_tokens - 1) if output_tokens > 1 else 0.0,
            output_tokens=output_tokens,
        )
