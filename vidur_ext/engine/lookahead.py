"""Look-ahead routing: the cheapest choice, in a simulation or in a cluster that one follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.engine import loop
from vidur_ext.engine.choice_costs import cheapest
from vidur_ext.engine.failures import check_end
from vidur_ext.engine.layout import (
    Cluster,
    Counter,
    EngineState,
    Inputs,
    InSession,
    Ints,
    Line,
    Simulation,
    alone,
    new_simulation,
    new_state,
    write_requests,
    write_texts,
)
from vidur_ext.engine.planner import Planner
from vidur_ext.engine.routing import ASK
from vidur_ext.engine.texts import TextTree, separate_texts
from vidur_ext.routing.dice import SPARE_WORDS, WORDS_PER_DECISION, Dice, random_words

_ASKED = np.ones(1, dtype=np.bool_)
_FIRST_ROOM = 512
"""Requests that a twin has memory for at first."""


class Lookahead:
    """Decides for one simulation, by what its completed requests have shown of output lengths.

    Args:
        cluster: the simulation's.
        sim: rule GIVEN, with the random words that break ties.
        name: ``lookahead``, or ``clairvoyant`` with the true output lengths.
        ttft_weight: L, see ``Planner``.

    Raises:
        UserError: there is no ``ttft_weight``, or the signals are delayed.
    """

    def __init__(
        self, cluster: Cluster, sim: Simulation, name: str, ttft_weight: float | None
    ) -> None:
        if ttft_weight is None:
            raise UserError(
                f"{name} needs ttft_weight, what a second to the first token weighs: pass "
                "config.lookahead.ttft_weight"
            )
        settings = cluster.settings
        for key in ("signal_delay_s", "kv_event_delay_s"):
            delay_s = getattr(settings, key)
            if delay_s:
                raise UserError(
                    f"{name} plans from the cluster as it is, and the router is to see it as it "
                    f"was {delay_s:g} s ago: take another scheduler, or set observation.{key} to 0"
                )
        clairvoyant = name == "clairvoyant"
        num_requests = len(sim.state.arrived)
        self._planner = Planner(cluster, 1, num_requests, ttft_weight, clairvoyant=clairvoyant)
        self._sims = alone(sim)
        used = sim.state.counters[Counter.WORD : Counter.WORD + 1]
        self._dice = Dice(sim.inputs.words, used)

    def choose(self) -> int:
        """Return the replica for the request that waits."""
        return cheapest(self._planner.costs(self._sims, _ASKED)[0], self._dice)

    def forget(self) -> None:
        """See ``Planner.forget``."""
        self._planner.forget()


class ClusterTwin:
    """Routes the requests of a cluster that something else simulates, and simulates it alongside.

    Both engines do the same, so what the planner reads here is what happens there; a router of real
    replicas would ask them instead. Memory grows with the requests.

    Args:
        cluster: the cluster in numbers.
        name, ttft_weight: see ``Lookahead``.
        rng: breaks ties; it is drawn from in blocks.
    """

    def __init__(
        self, cluster: Cluster, name: str, ttft_weight: float, rng: np.random.Generator
    ) -> None:
        self._cluster = cluster
        self._settings = cluster.settings.without_knowledge()
        self._name = name
        self._ttft_weight = ttft_weight
        self._rng = rng
        self._routed = 0
        self._texts = TextTree()
        nobody = np.zeros(0, dtype=np.int64)
        self._make_room(
            new_state(np.zeros(0), nobody, nobody, nobody, self._settings),
            separate_texts(0).lines,
            random_words(rng, SPARE_WORDS),
        )

    def route(
        self,
        arrived_at: float,
        prompt_tokens: int,
        output_tokens: int,
        identities: Ints | None = None,
        *,
        waited: bool = False,
    ) -> int:
        """Return the replica for a request that arrives now, and let it go there.

        Args:
            arrived_at: time [s], not before the last one's.
            output_tokens: nobody looks at them before they are generated, but ``clairvoyant``.
            waited: whether an answer has brought it about: then it comes after the batches that end
                at its instant.
            identities: what each full block of its text holds; None: what no other does.

        Raises:
            UserError: a batch exceeds the execution-time tables.
        """
        state, inputs = self._sim.state, self._sim.inputs
        if self._routed == len(state.arrived):
            self._make_room(state, inputs.lines, inputs.words)
        sim, row = self._sim, slice(self._routed, self._routed + 1)
        sim.state.arrived[row] = arrived_at
        write_requests(
            sim.state.requests[row], np.array([prompt_tokens]), np.array([output_tokens])
        )
        if sim.inputs.lines is not None and sim.state.prefixes is not None:
            place = self._texts.add(self._routed, *_runs(identities))
            sim.inputs.lines[row, Line.PARENT] = place.parent
            sim.inputs.lines[row, Line.BASE] = place.base
            write_texts(sim.state.prefixes.texts[row], np.array([place.leaf]))
        sim.state.counters[Counter.LAST] = waited
        if loop.advance(sim) == loop.AT_END:
            check_end(sim, self._cluster.limits)
        replica = self._lookahead.choose()
        loop.assign(sim, replica)
        self._routed += 1
        return replica

    def _make_room(self, state: EngineState, lines: Ints | None, words: NDArray[np.uint32]) -> None:
        """Go on from a state with room for twice as many requests."""
        cluster, capacity = self._cluster, max(2 * len(state.arrived), _FIRST_ROOM)
        nothing = np.zeros(capacity, dtype=np.int64)
        texts = separate_texts(capacity)
        never = np.full(capacity, np.inf)
        larger = new_state(never, nothing, nothing, texts.leaves, self._settings)
        for before, now in zip(state.arrays().values(), larger.arrays().values(), strict=True):
            now[tuple(map(slice, before.shape))] = before
        if lines is not None:
            texts.lines[: len(lines)] = lines
        more = capacity - len(state.arrived)
        self._sim = new_simulation(
            cluster,
            self._settings,
            Inputs(
                np.full(capacity, ASK, dtype=np.int64),
                texts.lines,
                None,
                np.zeros((capacity, len(InSession)), dtype=np.int64),  # no rule is asked
                np.concatenate([words, random_words(self._rng, WORDS_PER_DECISION * more)]),
            ),
            larger,
        )
        self._lookahead = Lookahead(cluster, self._sim, self._name, self._ttft_weight)


def _runs(identities: Ints | None) -> tuple[list[int], list[int]]:
    """Return the first identity of each run of consecutive ones, and how many they are."""
    if identities is None or len(identities) == 0:
        return [], []
    begins = np.flatnonzero(np.diff(identities, prepend=identities[0] - 2) != 1)
    counts = np.diff(begins, append=len(identities))
    return identities[begins].tolist(), counts.tolist()
