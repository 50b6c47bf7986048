"""One simulation by the compiled engine, with the results of Vidur's own."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.config.sections import PLANNERS
from vidur_ext.engine import loop
from vidur_ext.engine.closed_loops import turns_of
from vidur_ext.engine.delayed import LateRouter
from vidur_ext.engine.failures import check_end
from vidur_ext.engine.layout import (
    GIVEN,
    SEQUENCE,
    Cluster,
    Counter,
    EngineState,
    Inputs,
    Ints,
    Request,
    Settings,
    Text,
    Time,
    new_simulation,
    new_state,
    sees_late,
    sessions_in_numbers,
)
from vidur_ext.engine.lookahead import Lookahead
from vidur_ext.engine.routing import routing_of
from vidur_ext.engine.texts import texts_of
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.routed_sessions import routed_sessions

Snapshot = dict[str, NDArray[Any]]


class CompiledSimulation:
    """Simulates the requests of ``table`` on a cluster.

    Vidur's and this plug-in's heuristics route inside compiled code, planners between calls of it.
    Without a scheduler the caller does: ``advance`` returns the request, ``assign`` its replica.

    Args:
        cluster: the cluster in numbers.
        table: the requests.
        scheduler: name of the global scheduler; None leaves every decision to the caller.
        seed: of the stream that breaks ties, as Vidur's ``--seed``.
        choices: replica per request [N] instead of the scheduler's, to replay a routing; -1 leaves
            one to the caller.
        rng: breaks the ties of this plug-in's schedulers instead of the seed's stream; all that
            could be needed is drawn at once.
        ttft_weight: L of the planners, which need it; see ``Planner``.

    Raises:
        UserError: there is no such scheduler, it lacks something, it is a planner that is to see
            the cluster late, or ``choices`` do not fit.
    """

    def __init__(
        self,
        cluster: Cluster,
        table: RequestTable,
        scheduler: str | None,
        *,
        seed: int = 0,
        choices: Ints | None = None,
        rng: np.random.Generator | None = None,
        ttft_weight: float | None = None,
    ) -> None:
        self.table = table
        num_replicas = cluster.num_replicas
        routing = routing_of(scheduler, seed, len(table), num_replicas, choices, rng)
        self._limits = cluster.limits
        settings = cluster.settings._replace(rule=routing.rule)
        if routing.rule in (GIVEN, SEQUENCE):  # nobody looks
            settings = settings.without_knowledge()
        texts, turns = texts_of(table, settings), turns_of([table], settings)
        turns = turns and turns.of(0)
        self._sim = new_simulation(
            cluster,
            settings,
            Inputs(
                routing.choices,
                texts.lines,
                turns,
                sessions_in_numbers(routed_sessions(table)),
                routing.words,
            ),
            new_state(
                table.arrived_at,
                table.prefill_tokens,
                table.decode_tokens,
                texts.leaves,
                settings,
                turns,
            ),
        )
        self._late: LateRouter | None = None
        if sees_late(settings) and routing.rule not in (GIVEN, SEQUENCE):
            self._late = LateRouter(self._sim, table)
        self._planner: Lookahead | None = None
        if scheduler in PLANNERS and choices is None:
            self._planner = Lookahead(cluster, self._sim, scheduler, ttft_weight)

    def advance(self) -> int:
        """Simulate up to the next decision that is the caller's.

        Returns the index of the request to be routed, or -1 when every request has been served.

        Raises:
            UserError: a batch exceeds the execution-time tables, or a request can never be served.
        """
        request = loop.advance(self._sim)
        router = self._late or self._planner
        while router is not None and request != loop.AT_END:
            loop.assign(self._sim, router.choose())
            request = loop.advance(self._sim)
        if request == loop.AT_END:
            check_end(self._sim, self._limits)
        return request

    def assign(self, replica: int) -> None:
        """Route the request that ``advance`` returned."""
        assert 0 <= replica < len(self._sim.state.replicas), f"there is no replica {replica}"
        assert self.state.counters[Counter.ARRIVALS] < len(self.table), (
            "every request is routed already"
        )
        loop.assign(self._sim, replica)

    def run(self) -> None:
        """Simulate to the end; there must be a global scheduler, or the choices given.

        Raises:
            UserError: see ``advance``.
        """
        request = self.advance()
        assert request == loop.AT_END, f"request {request} waits for a decision of the caller"

    def snapshot(self) -> Snapshot:
        """Return a copy of everything that changes."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what ``snapshot`` returned, from a simulation of the same config and table.

        Raises:
            UserError: the snapshot's arrays are not those of this simulation.
        """
        arrays = self._arrays()
        expected = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        given = {name: (array.shape, array.dtype) for name, array in snapshot.items()}
        if given != expected:
            raise UserError(
                "the snapshot is of another simulation: restore it into one with the same "
                f"replicas, batch cap, block size and requests (expected {expected}, got {given})"
            )
        for name, array in arrays.items():
            array[...] = snapshot[name]
        if self._planner is not None:
            # What it knows of output lengths follows from the completed requests.
            self._planner.forget()

    def digest(self) -> str:
        """Return a digest of everything that changes: equal digests, equal futures."""
        content = hashlib.blake2b(digest_size=16)
        for array in self._arrays().values():
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()

    def _arrays(self) -> Snapshot:
        arrays = self.state.arrays()
        if self._late is not None:
            for follower, state in self._late.followers._asdict().items():
                if state is not None:
                    arrays |= {f"{follower}.{name}": one for name, one in state.arrays().items()}
        return arrays

    @property
    def state(self) -> EngineState:
        """The arrays themselves; see ``layout`` for their columns."""
        return self._sim.state

    @property
    def settings(self) -> Settings:
        """The limits of every replica."""
        return self._sim.settings

    @property
    def next_arrival(self) -> float:
        """Time [s] of the first request that is not routed yet; infinite after the last."""
        request = int(self.state.counters[Counter.ARRIVALS])
        return float(self.table.arrived_at[request]) if request < len(self.table) else np.inf

    @property
    def arrived_at(self) -> Floats:
        """Time of each request's arrival [s]; infinite while it waits for an answer."""
        return self.state.arrived.copy()

    @property
    def routing(self) -> Ints:
        """Replica per request [N]; -1 for those to come."""
        return self.state.requests[:, Request.REPLICA].copy()

    @property
    def preemptions(self) -> Ints:
        """How often each request was preempted [N]."""
        return self.state.requests[:, Request.RESTARTS].copy()

    @property
    def found_tokens(self) -> Ints:
        """Tokens per prompt [N] that a prefix cache held when it was first scheduled."""
        prefixes = self.state.prefixes
        if prefixes is None:
            return np.zeros(len(self.table), dtype=np.int64)
        return prefixes.texts[:, Text.HITS].copy()

    @property
    def scheduled_at(self) -> Floats:
        """Time of each request's first batch [s]; 0 for those to come."""
        return self.state.times[:, Time.SCHEDULED].copy()

    @property
    def prefill_completed_at(self) -> Floats:
        """Time of each request's first token [s]; 0 for those to come."""
        return self.state.times[:, Time.PREFILLED].copy()

    @property
    def completed_at(self) -> Floats:
        """Time of each request's last token [s]; 0 for those to come."""
        return self.state.times[:, Time.COMPLETED].copy()
