"""Routers to which signals come late: they see a state that follows the simulation.

That state goes the same way ``Settings.signal_delay_s`` behind, which costs what the simulation
does. So this is compiled only where it is asked for, and apart from what sees the present. What a
router knows of prefix caches may have a delay, and a state, of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ppo_scheduler.compiled import compiled, compiled_apart, compiled_entry
from vidur_ext.engine.closed_loops import arriving, has_waited, request_at
from vidur_ext.engine.expectations import look_up, pass_on
from vidur_ext.engine.layout import (
    Counter,
    EngineState,
    Inputs,
    Request,
    Settings,
    Simulation,
    View,
    new_state,
    one_of,
    state_of,
    with_inputs,
    with_state,
)
from vidur_ext.engine.look import see
from vidur_ext.engine.loop import assign_row, run_until
from vidur_ext.engine.routing import route_by_view
from vidur_ext.engine.step import Environments, Outlook, memory_of, show
from vidur_ext.engine.texts import texts_of
from vidur_ext.workload.request_table import RequestTable


class Followers(NamedTuple):
    """States that go the way of a simulation, or of stacked ones.

    seen: so late as signals; cached: so late as what is known of prefix caches. None: another state
    is as late.
    """

    seen: EngineState | None
    cached: EngineState | None

    def beside(self, state: EngineState, settings: Settings) -> tuple[EngineState, EngineState]:
        """Return the states in which a router sees the replicas, and their prefix caches.

        Args:
            state: the present one.
        """
        seen = state if self.seen is None else self.seen
        if self.cached is not None:
            return seen, self.cached
        return seen, seen if settings.kv_event_delay_s else state


def followers_of(settings: Settings, fresh: Callable[[Settings], EngineState]) -> Followers:
    """Return what a router needs that sees late, before the first arrival.

    Args:
        fresh: makes a state.
    """
    behind = settings.without_index()
    return Followers(
        seen=fresh(behind) if settings.signal_delay_s else None,
        cached=fresh(behind)
        if settings.kv_event_delay_s not in (0.0, settings.signal_delay_s)
        else None,
    )


@compiled_apart
def _follow(sim: Simulation, seen: EngineState, delay_s: float) -> None:
    """Bring a state to the delay before the present; what happens then is not seen yet.

    SEEN becomes what was completed by the last call.
    """
    until = sim.state.now[0] - delay_s
    # When requests arrive is known: it waits for nobody.
    own = sim.inputs
    inputs = Inputs(own.choices, own.lines, None, own.sessions, own.words)
    behind = with_state(with_inputs(sim, inputs), seen)
    counters, shown = seen.counters, seen.counters[Counter.FINISHED]
    while True:
        request = request_at(sim.state.loops, counters[Counter.ARRIVALS])
        arrival = sim.state.arrived[request]
        instant = min(arrival, until)
        waited = has_waited(sim.inputs.turns, request if arrival < until else arriving(sim))
        if instant > seen.now[0] or waited:
            run_until(behind, np.nextafter(instant, np.inf) if waited else instant)
            seen.now[0] = instant
        if arrival >= until:
            break
        replica = sim.state.requests[request, Request.REPLICA]
        pass_on(sim.state.expected, seen.expected, request, replica)
        assign_row(behind, request, replica)
    counters[Counter.SEEN] = shown


@compiled
def _see_late(sim: Simulation, seen: EngineState, cached: EngineState) -> None:
    """Bring what follows a simulation up to the decision that waits."""
    signals_s, events_s = sim.settings.signal_delay_s, sim.settings.kv_event_delay_s
    if signals_s > 0.0:
        _follow(sim, seen, signals_s)
    if events_s > 0.0 and events_s != signals_s:
        _follow(sim, cached, events_s)
    look_up(sim, cached)


@compiled_entry
def _choose(sim: Simulation, seen: EngineState, cached: EngineState) -> int:
    _see_late(sim, seen, cached)
    return route_by_view(View(sim, seen))


class LateRouter:
    """Decides for one simulation by its rule.

    Args:
        sim: with a rule that looks at the replicas.
        table: its requests.
    """

    def __init__(self, sim: Simulation, table: RequestTable) -> None:
        self._sim = sim
        leaves = texts_of(table, sim.settings).leaves
        prompts, outputs = table.prefill_tokens, table.decode_tokens
        self.followers = followers_of(
            sim.settings,
            lambda settings: new_state(table.arrived_at, prompts, outputs, leaves, settings),
        )
        """What changes beside the simulation."""

    def choose(self) -> int:
        """Return the replica for the request that waits."""
        return _choose(self._sim, *self.followers.beside(self._sim.state, self._sim.settings))


@compiled_entry
def show_late(envs: Environments, seen: EngineState, cached: EngineState, out: Outlook) -> None:
    """Write what the environments show after a step.

    Args:
        seen, cached: stacked states, of ``Followers.beside``.
    """
    for env in range(len(envs.traces)):
        sim = one_of(envs.sims, env)
        counters = sim.state.counters
        if counters[Counter.ARRIVALS] < len(sim.state.requests) and not counters[Counter.OVERFLOW]:
            view = View(sim, state_of(seen, env))
            _see_late(sim, view.seen, state_of(cached, env))
            see(view, envs.reward, envs.sight)
            show(envs, memory_of(envs, env), env, out)
