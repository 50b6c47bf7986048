"""Routers to which signals come late: they see a state that follows the simulation.

That state goes the same way ``Settings.signal_delay_s`` behind, which costs what the simulation
does. So this is compiled only where it is asked for, and apart from what sees the present.
"""

from __future__ import annotations

import numpy as np

from vidur_ext.compiled import compiled, compiled_entry
from vidur_ext.engine.closed_loops import arriving, has_waited, request_at
from vidur_ext.engine.layout import (
    Counter,
    EngineState,
    Inputs,
    Request,
    Simulation,
    View,
    new_state,
    one_of,
    state_of,
)
from vidur_ext.engine.look import see
from vidur_ext.engine.loop import assign_row, run_until
from vidur_ext.engine.routing import route_by_view
from vidur_ext.engine.step import Environments, Outlook, memory_of, show
from vidur_ext.engine.texts import texts_of
from vidur_ext.workload.request_table import RequestTable


@compiled
def _follow(view: View) -> None:
    """Bring what is seen to the delay before the present; what happens then is not seen yet.

    SEEN becomes what was completed by the last call.
    """
    sim, seen = view.sim, view.seen
    until = sim.state.now[0] - sim.settings.signal_delay_s
    # When requests arrive is known: it waits for nobody.
    inputs = Inputs(sim.inputs.choices, sim.inputs.lines, None, sim.inputs.words)
    behind = Simulation(sim.settings, sim.tables, sim.estimates, inputs, seen, sim.scores, sim.way)
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
        assign_row(behind, request, sim.state.requests[request, Request.REPLICA])
    counters[Counter.SEEN] = shown


@compiled_entry
def _choose(view: View) -> int:
    _follow(view)
    return route_by_view(view)


class LateRouter:
    """Decides for one simulation by its rule.

    Args:
        sim: with a rule that looks at the replicas.
        table: its requests.
    """

    def __init__(self, sim: Simulation, table: RequestTable) -> None:
        leaves = texts_of(table, sim.settings).leaves
        self.seen = new_state(
            table.arrived_at, table.prefill_tokens, table.decode_tokens, leaves, sim.settings
        )
        """What changes beside the simulation."""
        self._view = View(sim, self.seen)

    def choose(self) -> int:
        """Return the replica for the request that waits."""
        return _choose(self._view)


@compiled_entry
def show_late(envs: Environments, seen: EngineState, out: Outlook) -> None:
    """Write what the environments show after a step.

    Args:
        seen: stacked states that follow those of ``envs``.
    """
    for env in range(len(envs.traces)):
        sim = one_of(envs.sims, env)
        counters = sim.state.counters
        if counters[Counter.ARRIVALS] < len(sim.state.requests) and not counters[Counter.OVERFLOW]:
            view = View(sim, state_of(seen, env))
            _follow(view)
            see(view, envs.reward, envs.sight)
            show(envs, memory_of(envs, env), env, out)
