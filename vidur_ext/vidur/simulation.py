"""One Vidur simulation over a given table of requests."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vidur.entities import Batch, Cluster, Replica, Request
from vidur.entities.batch_stage import BatchStage
from vidur.entities.execution_time import ExecutionTime
from vidur.events import BaseEvent, RequestArrivalEvent
from vidur.simulator import Simulator

from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose, seed_sequence
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.view import Earned
from vidur_ext.vidur.build import simulation_config
from vidur_ext.vidur.estimates import request_overhead_s
from vidur_ext.vidur.prefix_knowledge import ReportedCaches, ReportEvent
from vidur_ext.vidur.requests import requests_of
from vidur_ext.vidur.schedulers import Router, RoutingGlobalScheduler
from vidur_ext.vidur.signals import SignalEvent
from vidur_ext.workload.request_table import RequestTable

_COUNTED_FROM_MINUS_ONE = (Batch, BatchStage, Cluster, ExecutionTime, Replica, Request)


def reset_id_counters() -> None:
    """Let ids begin anew: Vidur counts them per class, over all simulations of a process."""
    for entity in _COUNTED_FROM_MINUS_ONE:
        entity._id = -1
    BaseEvent._id = 0


@contextmanager
def isolated_simulation() -> Iterator[None]:
    """Let another simulation run inside the block while one is under way.

    Vidur's ids, which order simultaneous events, and Python's random numbers go on after the
    block as if it had not been there.
    """
    ids = [entity._id for entity in _COUNTED_FROM_MINUS_ONE]
    event_id, random_state = BaseEvent._id, random.getstate()
    try:
        yield
    finally:
        for entity, last in zip(_COUNTED_FROM_MINUS_ONE, ids, strict=True):
            entity._id = last
        BaseEvent._id = event_id
        random.setstate(random_state)


_AFTER_ALL_OTHERS = 1 << 62
"""Number of an event that is far above those that Vidur counts."""


class RoutedSimulator(Simulator):
    """Vidur's simulator, which remembers what was routed where.

    Requests that wait for answers arrive when these are there. The signals of a scheduler that sees
    them late are sent in time.

    Raises:
        UserError: requests wait for answers, and signals are delayed.
    """

    def __init__(self, config: Any) -> None:
        self._replica_id_of: dict[int, Any] = {}
        super().__init__(config)
        self._schedule = self._scheduler.schedule
        self._scheduler.schedule = self._recorded_schedule

    def _requests(self) -> list[Any]:
        """Return what is to be simulated."""
        return list(self._request_generator.generate())

    def _init_event_queue(self) -> None:
        self.requests = self._requests()
        fresh = []
        for request in self.requests:
            awaited = getattr(request, "awaited", None)
            if awaited is None:
                fresh.append(request)
            else:
                awaited.when_completed = partial(self._go_on, request)
        self._check_signals(len(fresh))
        for request in fresh:
            self._add_event(RequestArrivalEvent(request.arrived_at, request))
        self._send_signals(fresh)

    def _check_signals(self, fresh: int) -> None:
        cluster = self._config.cluster_config
        late = cluster.signal_delay_s > 0.0 or cluster.kv_event_delay_s > 0.0
        if late and fresh < len(self.requests):
            raise UserError(
                "turns of these sessions wait for the answers before them, and Vidur must know "
                "beforehand when requests arrive to which signals come late: set "
                'simulation.engine to "compiled", observation.signal_delay_s and '
                "observation.kv_event_delay_s to 0, or choose requests that arrive at times of "
                "their own"
            )

    def _send_signals(self, requests: Iterable[Any]) -> None:
        """Let the router see, with each request, what there was the delay before."""
        if not isinstance(self._scheduler, RoutingGlobalScheduler):
            return
        delay_s = self._config.cluster_config.signal_delay_s
        signals, knowledge = self._scheduler.signals, self._scheduler.knowledge
        for request in requests:
            if signals:
                self._add_event(SignalEvent(request.arrived_at - delay_s, signals))
            if isinstance(knowledge, ReportedCaches) and knowledge.delay_s:
                instant = request.arrived_at - knowledge.delay_s
                self._add_event(ReportEvent(instant, knowledge, request))

    def _go_on(self, request: Any) -> None:
        """Let a request arrive, the answer to the one that it has awaited being there.

        Events at one instant happen in the order of their numbers: this comes after all others, and
        after those of earlier requests.
        """
        awaited = request.awaited
        replica = self._scheduler.get_replica_scheduler(self._replica_id_of[awaited.id])
        overhead_s = request_overhead_s(replica._execution_time_predictor)
        request._arrived_at = awaited.completed_at + overhead_s + request.think_s
        event = RequestArrivalEvent(request._arrived_at, request)
        event._id = _AFTER_ALL_OTHERS + request.id
        event._priority_number = event._get_priority_number()
        self._add_event(event)

    def _recorded_schedule(self) -> list[tuple[Any, Any]]:
        mapping: list[tuple[Any, Any]] = self._schedule()
        for replica_id, request in mapping:
            self._replica_id_of[request.id] = replica_id
        return mapping


_SEEN_BY_USERS = ("prefill_completed_at", "completed_at")


class VidurSimulation(RoutedSimulator):
    """Vidur's simulator over requests that are handed in.

    Requests are those of ``table``; without one they come from the configured generator.

    Raises:
        UserError: requests wait for answers, and signals are delayed.
    """

    def __init__(self, config: Any, table: RequestTable | None = None) -> None:
        # Vidur announces every simulation; programs that run many have their own reports.
        logging.getLogger("vidur").setLevel(logging.WARNING)
        reset_id_counters()
        self._table = table
        super().__init__(config)
        self._index_of = {replica: i for i, replica in enumerate(self._cluster.replicas)}
        # Vidur's own random scheduler draws from Python's module-level generator.
        state = seed_sequence(config.seed, Purpose.SCHEDULER).generate_state(1)
        random.seed(int(state[0]))

    def _requests(self) -> list[Any]:
        return super()._requests() if self._table is None else requests_of(self._table)

    @property
    def now(self) -> float:
        """Simulated time [s]."""
        return self._time

    @property
    def routing(self) -> NDArray[np.int64]:
        """Replica index per request, in the order of arrival."""
        replicas = (self._index_of[self._replica_id_of[r.id]] for r in self.requests)
        return np.fromiter(replicas, dtype=np.int64)

    @property
    def found_tokens(self) -> NDArray[np.int64]:
        """Tokens per prompt [N] that a prefix cache held when it was first scheduled."""
        return np.array([request.found_tokens for request in self.requests], dtype=np.int64)

    @property
    def preemptions(self) -> NDArray[np.int64]:
        """How often each request [N] had to begin again."""
        return np.array([request.num_restarts for request in self.requests], dtype=np.int64)

    def times(self, name: str) -> NDArray[np.float64]:
        """Return a time of every request [s], e.g. ``completed_at``, as its user sees it."""
        times = np.array([getattr(request, name) for request in self.requests], dtype=np.float64)
        if name not in _SEEN_BY_USERS:
            return times
        predictors = (
            self._scheduler.get_replica_scheduler(replica)._execution_time_predictor
            for replica in self._index_of
        )
        return times + np.array([request_overhead_s(one) for one in predictors])[self.routing]


def simulation_of(config: TrainingConfig, scheduler: str, table: RequestTable) -> VidurSimulation:
    """Return Vidur's simulation of a run's cluster under a global scheduler, given by its name.

    Raises:
        UserError: the model or its longest request does not fit a device's memory.
    """
    return VidurSimulation(simulation_config(config, scheduler), table)


def routed_by(
    router: Router,
    config: TrainingConfig,
    table: RequestTable,
    *,
    previous_end: Earned | None = None,
    scales: StageScales | None = None,
) -> VidurSimulation:
    """Return Vidur's simulation with ``router`` in the global scheduler's seat.

    Args:
        previous_end, scales: see ``PPOGlobalSchedulerModular.attach``.
    """
    simulation = simulation_of(config, "ppo_modular", table)
    simulation.scheduler.attach(
        router,
        config,
        previous_end=previous_end,
        scales=scales,
    )
    return simulation
