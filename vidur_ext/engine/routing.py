"""How a simulation is routed: by a heuristic, by Vidur's own rules, by an array, by the caller.

Planners decide outside of the loop, as callers do, and so does who sees the cluster late; see
``lookahead`` and ``delayed``.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled
from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose, generator, seed_sequence
from vidur_ext.config.sections import PLANNERS, SCHEDULERS
from vidur_ext.engine.closed_loops import arriving
from vidur_ext.engine.layout import (
    GIVEN,
    SEQUENCE,
    SHORTEST_QUEUE,
    Counter,
    Ints,
    Simulation,
    View,
    sees_late,
)
from vidur_ext.engine.look import look, waiting_requests
from vidur_ext.routing.dice import SPARE_WORDS, WORDS_PER_DECISION, Dice, random_words
from vidur_ext.routing.heuristics import HEURISTICS, ask

_sees_late = compiled(sees_late)

ASK = -1
"""In an array of choices: the caller decides."""


@compiled
def _shortest_queue(view: View) -> int:
    """Return the first replica with the fewest waiting requests: Vidur's LOR."""
    best, fewest = 0, waiting_requests(view, 0)
    for replica in range(1, len(view.seen.replicas)):
        waiting = waiting_requests(view, replica)
        if waiting < fewest:
            best, fewest = replica, waiting
    return best


@compiled
def route_by_view(view: View) -> int:
    """Return the replica for the next request, by a rule that looks at the replicas."""
    sim = view.sim
    if sim.settings.rule == SHORTEST_QUEUE:
        return _shortest_queue(view)
    used = sim.state.counters[Counter.WORD : Counter.WORD + 1]
    dice = Dice(sim.inputs.words, used)
    return ask(
        sim.settings.rule, look, view, sim.settings.thresholds, sim.compared, sim.scores, dice
    )


@compiled
def route(sim: Simulation) -> int:
    """Return the replica for the next request, or ASK."""
    if sim.settings.rule == GIVEN:
        return int(sim.inputs.choices[arriving(sim)])
    if sim.settings.rule == SEQUENCE:
        return int(sim.inputs.choices[sim.state.counters[Counter.ARRIVALS]])
    if _sees_late(sim.settings):
        return ASK
    return route_by_view(View(sim, sim.state))


class Routing(NamedTuple):
    """A rule, replicas [N] for GIVEN or SEQUENCE, and random words for heuristics and planners."""

    rule: int
    choices: Ints
    words: NDArray[np.uint32]


def routing_of(
    scheduler: str | None,
    seed: int,
    num_requests: int,
    num_replicas: int,
    choices: Ints | None,
    rng: np.random.Generator | None = None,
) -> Routing:
    """Return how the global scheduler called ``scheduler`` routes under Vidur's ``--seed``.

    Args:
        scheduler: None leaves every decision to the caller.
        choices: replicas [N] to take instead of the scheduler's; ASK leaves one to the caller.
        rng: breaks the ties of a scheduler of this plug-in instead of the seed's own stream.

    Raises:
        UserError: there is no such scheduler, or ``choices`` are not one replica per request.
    """
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise UserError(
            f"the engine has no scheduler {scheduler!r}: choose one of {', '.join(SCHEDULERS)}"
        )
    if choices is not None:
        return _given(_checked(choices, num_requests, num_replicas))
    if scheduler is None:
        return _given(np.full(num_requests, ASK, dtype=np.int64))
    if scheduler == "round_robin":
        return _given(np.arange(num_requests, dtype=np.int64) % num_replicas, SEQUENCE)
    if scheduler == "random":
        return _given(_random_choices(seed, num_requests, num_replicas), SEQUENCE)
    if scheduler == "lor":
        return Routing(SHORTEST_QUEUE, np.zeros(0, np.int64), np.zeros(0, np.uint32))
    stream = generator(seed, Purpose.SCHEDULER) if rng is None else rng
    words = random_words(stream, WORDS_PER_DECISION * num_requests + SPARE_WORDS)
    if scheduler in PLANNERS:
        return Routing(GIVEN, np.full(num_requests, ASK, dtype=np.int64), words)
    return Routing(HEURISTICS[scheduler].number, np.zeros(0, np.int64), words)


def _given(choices: Ints, rule: int = GIVEN) -> Routing:
    return Routing(rule, choices, np.zeros(0, np.uint32))


def _checked(choices: Ints, num_requests: int, num_replicas: int) -> Ints:
    given = np.array(choices)
    if given.shape != (num_requests,) or given.dtype.kind not in "iu":
        raise UserError(
            f"choices must be {num_requests} integers, one replica per request; they are "
            f"{given.dtype} of shape {given.shape}"
        )
    wrong = np.flatnonzero((given < ASK) | (given >= num_replicas))
    if len(wrong):
        raise UserError(
            f"choice {wrong[0]} is {given[wrong[0]]}; there are replicas 0 to {num_replicas - 1}, "
            f"and {ASK} asks for a decision"
        )
    return given.astype(np.int64)


def _random_choices(seed: int, num_requests: int, num_replicas: int) -> Ints:
    """Return what Vidur's random scheduler draws in a ``VidurSimulation``."""
    state = seed_sequence(seed, Purpose.SCHEDULER).generate_state(1)
    stream = random.Random(int(state[0]))
    return np.array([stream.randint(1, num_replicas) - 1 for _ in range(num_requests)], np.int64)
