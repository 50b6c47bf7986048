"""What the router sees of Vidur's cluster where signals reach it late."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from vidur.events import BaseEvent
from vidur.types import EventType

from vidur_ext.routing.view import ClusterSnapshot, Quantity, QueuedRequest
from vidur_ext.vidur.tracker import Observed, RequestTracker


class _Dispatched(NamedTuple):
    """A request as the router dispatched it."""

    replica: int
    arrived_at: float
    prompt_tokens: int
    output_tokens: int
    found_tokens: int


class DelayedSignals:
    """Shows the cluster as it was, and what the router has dispatched since as waiting."""

    def __init__(self, replica_schedulers: Sequence[Any]) -> None:
        self.tracker = RequestTracker(replica_schedulers)
        self._on_the_way: deque[Observed] = deque()
        self._dispatched: deque[_Dispatched] = deque()

    def send(self, now: float) -> None:
        """Let the cluster at ``now`` be what the next decision without signals of its own sees."""
        self._on_the_way.append(self.tracker.observe(now))

    def assign(self, replica: int, request: Any, found_tokens: int) -> None:
        """See ``RequestTracker.assign``."""
        self.tracker.assign(replica, request, found_tokens)
        self._dispatched.append(
            _Dispatched(
                replica,
                request._arrived_at,
                request._num_prefill_tokens,
                request._num_decode_tokens,
                found_tokens,
            )
        )

    def receive(self, present: Observed) -> Observed:
        """Return what is seen at a decision.

        Args:
            present: what there is. How much time has passed is known at once.
        """
        sent = self._on_the_way.popleft()
        while self._dispatched and self._dispatched[0].arrived_at < sent.snapshot.now:
            self._dispatched.popleft()
        return Observed(
            self._with_dispatched(sent.snapshot, present.snapshot.now),
            replace(present.interval, completions=sent.interval.completions),
        )

    def _with_dispatched(self, snapshot: ClusterSnapshot, now: float) -> ClusterSnapshot:
        queues = list(snapshot.queues)
        for request in self._dispatched:
            column, age = snapshot.table[:, request.replica], now - request.arrived_at
            waiting, mean = column[Quantity.WAITING], column[Quantity.MEAN_WAIT_S]
            column[Quantity.WAITING] = waiting + 1
            column[Quantity.PENDING_PREFILL_TOKENS] += request.prompt_tokens
            uncached = request.prompt_tokens - request.found_tokens
            column[Quantity.UNCACHED_PREFILL_TOKENS] += uncached
            column[Quantity.REMAINING_OUTPUT_TOKENS] += request.output_tokens
            column[Quantity.OLDEST_WAIT_S] = max(column[Quantity.OLDEST_WAIT_S], age)
            column[Quantity.MEAN_WAIT_S] = (waiting * mean + age) / (waiting + 1)
            if len(queues[request.replica]) < self.tracker.queue_slots:
                queues[request.replica] += (QueuedRequest(age, request.prompt_tokens),)
        return replace(snapshot, queues=tuple(queues))


class SignalEvent(BaseEvent):
    """The instant whose signals reach the router with a later request.

    Vidur goes by the order in which events were made where they are simultaneous. These are made
    before the simulation runs, so that nothing of the instant has happened to a replica.
    """

    def __init__(self, time: float, signals: DelayedSignals) -> None:
        super().__init__(time, EventType.REQUEST_ARRIVAL)
        self._signals = signals

    def handle_event(self, scheduler: Any, metrics_store: Any) -> list[Any]:
        """Read the cluster; nothing follows from it."""
        self._signals.send(self.time)
        return []
