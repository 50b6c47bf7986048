"""One Vidur simulation over a given table of requests."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vidur.entities import Batch, Cluster, Replica, Request
from vidur.entities.batch_stage import BatchStage
from vidur.entities.execution_time import ExecutionTime
from vidur.events import BaseEvent, RequestArrivalEvent
from vidur.simulator import Simulator

from ppo_scheduler.control.curriculum import StageScales
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


class DelayingSimulator(Simulator):
    """Vidur's simulator; the signals of a scheduler that sees them late are sent in time."""

    def _init_event_queue(self) -> None:
        super()._init_event_queue()
        self._send_signals([event._request for _, event in self._event_queue])

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


_SEEN_BY_USERS = ("prefill_completed_at", "completed_at")


class VidurSimulation(DelayingSimulator):
    """Vidur's simulator over requests that are handed in, with the routing recorded.

    Requests are those of ``table``; without one they come from the configured generator.

    Raises:
        UserError: requests wait for answers.
    """

    def __init__(self, config: Any, table: RequestTable | None = None) -> None:
        # Vidur announces every simulation; programs that run many have their own reports.
        logging.getLogger("vidur").setLevel(logging.WARNING)
        reset_id_counters()
        self._table = table
        self._replica_of: dict[int, int] = {}
        super().__init__(config)
        self._index_of = {replica: i for i, replica in enumerate(self._cluster.replicas)}
        self._schedule = self._scheduler.schedule
        self._scheduler.schedule = self._recorded_schedule
        # Vidur's own random scheduler draws from Python's module-level generator.
        state = seed_sequence(config.seed, Purpose.SCHEDULER).generate_state(1)
        random.seed(int(state[0]))

    def _init_event_queue(self) -> None:
        if self._table is None:
            self.requests = self._request_generator.generate()
        else:
            self.requests = requests_of(self._table)
        for request in self.requests:
            self._add_event(RequestArrivalEvent(request.arrived_at, request))
        self._send_signals(self.requests)

    def _recorded_schedule(self) -> list[tuple[Any, Any]]:
        mapping: list[tuple[Any, Any]] = self._schedule()
        for replica_id, request in mapping:
            self._replica_of[request.id] = self._index_of[replica_id]
        return mapping

    @property
    def now(self) -> float:
        """Simulated time [s]."""
        return self._time

    @property
    def routing(self) -> NDArray[np.int64]:
        """Replica index per request, in the order of arrival."""
        return np.array([self._replica_of[r.id] for r in self.requests], dtype=np.int64)

    @property
    def found_tokens(self) -> NDArray[np.int64]:
        """Tokens per prompt [N] that a prefix cache held when it was first scheduled."""
        return np.array([request.found_tokens for request in self.requests], dtype=np.int64)

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
