"""Prices every choice for the waiting requests of simulations that run side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import Floats
from vidur_ext.engine.choice_costs import Learned, Plan, learn_completions, price_choices
from vidur_ext.engine.layout import (
    Cluster,
    Inputs,
    InSession,
    Simulation,
    Tables,
    new_simulation,
    new_state,
)
from vidur_ext.engine.texts import separate_texts
from vidur_ext.routing.output_lengths import new_lengths


class Planner:
    """Simulates every choice for a request, and learns meanwhile how long outputs are.

    What a choice costs follows from one simulation alone: it does not depend on how many there are,
    nor on which other choices are priced.

    Args:
        cluster: the cluster in numbers.
        num_envs: simulations B side by side.
        num_requests: requests of each of them at most.
        ttft_weight: L, what a second to the first token weighs beside one to the last.
        clairvoyant: plan with the true output lengths, which no real router knows.
        lengths: table of output lengths to begin with; see ``new_lengths``.
        tables: execution times to plan with, if they are others than the cluster's.
    """

    def __init__(
        self,
        cluster: Cluster,
        num_envs: int,
        num_requests: int,
        ttft_weight: float,
        *,
        clairvoyant: bool = False,
        lengths: Floats | None = None,
        tables: Tables | None = None,
    ) -> None:
        # A copy, as large as any replica: the bench becomes one after the other.
        largest = cluster.settings.own.max(axis=0, keepdims=True)
        settings = cluster.settings._replace(own=largest).without_knowledge()
        nothing = np.zeros(num_requests, dtype=np.int64)
        bench = new_simulation(
            cluster._replace(tables=tables or cluster.tables),
            settings,
            Inputs(
                nothing,
                separate_texts(0).lines,
                None,
                np.zeros((0, len(InSession)), dtype=np.int64),  # whoever plans does not ask a rule
                np.zeros(0, np.uint32),
            ),
            new_state(np.zeros(num_requests), nothing, nothing, nothing, settings),
        )
        self._num_replicas = cluster.num_replicas
        room = np.zeros((3, num_requests), dtype=np.int64)
        self._plan = Plan(ttft_weight, clairvoyant, bench, *room)
        self._first = new_lengths() if lengths is None else lengths
        self._learned = Learned(
            np.repeat(self._first[None], num_envs, axis=0), np.zeros(num_envs, dtype=np.int64)
        )

    def costs(self, sims: Simulation, asked: NDArray[np.bool_]) -> Floats:
        """Return what every choice costs [B, R] [request-seconds]; NaN where it is not asked.

        Only differences within a row mean anything.

        Args:
            sims: B stacked simulations; in those asked about a request waits.
            asked: [B].
        """
        costs = np.full((len(asked), self._num_replicas), np.nan)
        price_choices(self._plan, sims, self._learned, asked, costs)
        return costs

    def forget(self) -> None:
        """Know as little of output lengths as in the beginning; what was completed is learned anew.

        For simulations that went back in time.
        """
        self._learned.lengths[:] = self._first
        self._learned.counted[:] = 0

    def lengths(self, sims: Simulation) -> Floats:
        """Return the table of output lengths with all that was completed in any simulation."""
        learn_completions(sims, self._learned)
        return np.asarray(self._first + (self._learned.lengths - self._first).sum(axis=0))
