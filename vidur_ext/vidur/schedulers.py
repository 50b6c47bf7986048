"""Our global schedulers in Vidur's seat: thin adapters around heuristics and around one door."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.observation import Floats, Observation
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.routing.estimator import expected_output_tokens
from vidur_ext.routing.heuristics import HEURISTICS, Heuristic
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, Earned, SinceLastDecision
from vidur_ext.vidur.cluster import OwnDevices
from vidur_ext.vidur.estimates import estimates_of
from vidur_ext.vidur.observation import HeuristicChooser, Witness
from vidur_ext.vidur.prefix_knowledge import Found, knowledge_of
from vidur_ext.vidur.requests import RestartableRequest
from vidur_ext.vidur.router_flags import class_name, flagged_thresholds
from vidur_ext.vidur.signals import DelayedSignals
from vidur_ext.vidur.tracker import Observed, RequestTracker


class RoutingGlobalScheduler(OwnDevices):
    """Routes arriving requests one after the other.

    Requests that arrive at the same instant are decided in order, and each decision sees those
    before it. Vidur does not pass the time to ``schedule``; it is called at the arrival itself.
    """

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        self._order = list(self._replica_schedulers)
        schedulers = [self._replica_schedulers[replica] for replica in self._order]
        self._tracker = RequestTracker(schedulers)
        delay_s = config.cluster_config.signal_delay_s
        self.signals = DelayedSignals(schedulers) if delay_s else None
        """What it sees instead of the present; the simulator lets them be sent."""
        self.knowledge = knowledge_of(config.cluster_config, schedulers)
        """What it knows of prefix caches; where that is late, the simulator lets it be reported."""
        self.estimates = estimates_of(schedulers)
        self._completed = 0
        self._output_tokens = 0

    def schedule(self) -> list[tuple[Any, Any]]:
        """Return (replica id, request) for every request that has arrived."""
        self.sort_requests()
        arrived = list(self._request_queue)
        self._request_queue.clear()
        mapping = []
        for request in arrived:
            present = self._tracker.observe(request._arrived_at)
            seen = self.signals.receive(present) if self.signals else present
            self._completed += len(seen.interval.completions)
            self._output_tokens += sum(done.output_tokens for done in seen.interval.completions)
            nothing: Floats = np.zeros(len(self._order))
            found = self.knowledge.found(request) if self.knowledge else Found(nothing, nothing)
            arriving = ArrivingRequest(
                arrived_at=request._arrived_at,
                prompt_tokens=request._num_prefill_tokens,
                expected_output_tokens=expected_output_tokens(
                    self.estimates, self._completed, self._output_tokens
                ),
                output_tokens=request._num_decode_tokens,
                found_tokens=found.tokens,
                found_in_use_tokens=found.in_use,
                **_session_of(request),
            )
            replica = self._route(seen, present, arriving)
            if isinstance(request, RestartableRequest):
                request.replica = replica
            expected = int(found.tokens[replica])
            self._tracker.assign(replica, request, expected)
            if self.signals:
                self.signals.assign(replica, request, expected)
            if self.knowledge:
                self.knowledge.assign(replica, request)
            mapping.append((self._order[replica], request))
        return mapping

    @abstractmethod
    def _route(self, seen: Observed, present: Observed, request: ArrivingRequest) -> int:
        """Return the index of the replica that shall serve ``request``.

        Args:
            seen: what a router sees; ``present`` itself where signals are not delayed.
            present: what there is, for what is earned and logged.
        """


def _session_of(request: Any) -> dict[str, int]:
    """Return what a router knows of a request's session; Vidur's own have one each."""
    if not isinstance(request, RestartableRequest):
        return {"session": request._id, "session_replica": -1}
    before = request.before
    return {
        "session": request.session,
        "session_replica": -1 if before is None else before.replica,
    }


class HeuristicGlobalScheduler(RoutingGlobalScheduler):
    """Asks one heuristic. Its random stream follows Vidur's ``--seed``."""

    heuristic: Heuristic

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        rng = generator(config.seed, Purpose.SCHEDULER)
        told = flagged_thresholds(config)
        self._chooser = HeuristicChooser(self.heuristic.name, self.estimates, told, rng)

    def _route(self, seen: Observed, present: Observed, request: ArrivingRequest) -> int:
        return self._chooser.choose(seen.snapshot, request)


class ShortestQueueGlobalScheduler(RoutingGlobalScheduler):
    """Vidur's ``lor`` by what the router sees: the first replica with the fewest waiting requests.

    Vidur's own one asks the replicas, which know the present.
    """

    def _route(self, seen: Observed, present: Observed, request: ArrivingRequest) -> int:
        return int(np.argmin(seen.snapshot.row("waiting")))


HEURISTIC_SCHEDULERS = {
    name: type(
        f"{class_name(name)}GlobalScheduler",
        (HeuristicGlobalScheduler,),
        {"heuristic": heuristic, "__doc__": heuristic.description},
    )
    for name, heuristic in HEURISTICS.items()
}


class Router(Protocol):
    """Who decides: a learner, a frozen policy, or a teacher that is being watched."""

    def observe(
        self,
        snapshot: ClusterSnapshot,
        interval: SinceLastDecision,
        request: ArrivingRequest | None,
    ) -> None:
        """See the simulation itself before each decision, and once (without a request) at the end.

        For monitoring and for teachers; policies decide on observations alone. The snapshot is what
        routers see, the interval what happened.
        """

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return the replica [1] for the arriving request; see ``Learner.decide``."""


class PPOGlobalSchedulerModular(RoutingGlobalScheduler):
    """Builds the observation, hands it over with the reward, returns the replica."""

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        self._block_size = config.cluster_config.cache_config.block_size
        self._router: Router | None = None
        self._previous_end: Earned | None = None
        self._first_decision = True
        self._digest = hashlib.blake2b(digest_size=16)

    def attach(
        self,
        router: Router,
        config: RouterConfig,
        *,
        previous_end: Earned | None = None,
        scales: StageScales | None = None,
    ) -> None:
        """Let ``router`` decide. Must be called before the simulation runs.

        Args:
            config: what ``router`` is shown, and what it is told that it earned.
            previous_end: how the router's previous episode ended; it is handed over with the
                first decision, whose ``done`` is then true.
            scales: the curriculum stage of this episode.
        """
        self._router = router
        self._previous_end = previous_end
        tracker = self.signals.tracker if self.signals else self._tracker
        tracker.queue_slots = config.observation.queue_slots
        self._witness = Witness(config, self._block_size, self.estimates, scales or StageScales(0))

    def digest(self) -> str:
        """Return a digest of every state seen so far: equal digests, equal simulations."""
        return self._digest.hexdigest()

    def finish(self, now: float) -> Earned:
        """Close the episode at ``now``, when every request has been served."""
        snapshot, interval = self._tracker.observe(now)
        assert self._router is not None
        self._router.observe(snapshot, interval, None)
        return self._witness.earn(snapshot, interval)

    def _route(self, seen: Observed, present: Observed, request: ArrivingRequest) -> int:
        assert self._router is not None, "attach a router before the simulation runs"
        self._router.observe(seen.snapshot, present.interval, request)
        earned, done = self._witness.earn(present.snapshot, present.interval), False
        if self._first_decision and self._previous_end is not None:
            earned, done = self._previous_end, True
        self._first_decision = False
        self._digest.update(np.float64(present.snapshot.now).tobytes())
        self._digest.update(seen.snapshot.table.tobytes())
        observation = self._witness.show(seen.snapshot, seen.interval, request, earned)
        action = self._router.decide(observation, earned.reward, np.array([done]))
        return int(action[0])
