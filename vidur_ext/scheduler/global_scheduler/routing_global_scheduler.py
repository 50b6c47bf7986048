"""What all our global schedulers share: a tracker, and one routing decision per request."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from vidur_ext.env.latency_estimator import LatencyEstimator
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.env.tracker import RequestTracker
from vidur_ext.scheduler.global_scheduler.own_devices import OwnDevices


class RoutingGlobalScheduler(OwnDevices):
    """Routes arriving requests one after the other.

    Requests that arrive at the same instant are decided in order, and each decision sees those
    before it. Vidur does not pass the time to ``schedule``; it is called at the arrival itself.
    """

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        self._order = list(self._replica_schedulers)
        schedulers = [self._replica_schedulers[replica] for replica in self._order]
        self._tracker = RequestTracker(schedulers, self._queue_slots())
        self.estimator = LatencyEstimator(schedulers)

    def schedule(self) -> list[tuple[Any, Any]]:
        """Return (replica id, request) for every request that has arrived."""
        self.sort_requests()
        arrived = list(self._request_queue)
        self._request_queue.clear()
        mapping = []
        for request in arrived:
            snapshot, interval = self._tracker.observe(request._arrived_at)
            for completion in interval.completions:
                self.estimator.learn_output_length(completion.output_tokens)
            arriving = ArrivingRequest(
                request._arrived_at, request._num_prefill_tokens, request._num_decode_tokens
            )
            replica = self._route(snapshot, interval, arriving)
            self._tracker.assign(replica, request)
            mapping.append((self._order[replica], request))
        return mapping

    @abstractmethod
    def _route(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest
    ) -> int:
        """Return the index of the replica that shall serve ``request``."""

    def _queue_slots(self) -> int:
        """Return how many waiting requests per replica the snapshot lists."""
        return 0
