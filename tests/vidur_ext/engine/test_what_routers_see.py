"""At every decision the compiled state holds the numbers that a router sees in Vidur."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from vidur_ext.config.sections import HEURISTIC_NAMES
from vidur_ext.engine.layout import Replica
from vidur_ext.vidur.simulation import VidurSimulation

ROWS = (
    "waiting",
    "running",
    "decoding",
    "pending_prefill_tokens",
    "context_tokens",
    "kv_blocks_used",
    "remaining_output_tokens",
)


def seen_in_vidur(simulation):
    """Run Vidur and return the rows [7, R] of each decision."""
    seen, plain = [], simulation.scheduler._route

    def route(observed, present, request):
        seen.append(np.stack([observed.snapshot.row(name) for name in ROWS]))
        return plain(observed, present, request)

    simulation.scheduler._route = route
    simulation.run()
    return seen


def rows_of(simulation):
    """Read the same rows off the compiled state."""
    row = simulation.state.replicas.T
    context = (
        row[Replica.OFFSETS]
        + row[Replica.DECODING] * row[Replica.ROUNDS]
        + row[Replica.PARTIAL_DONE]
    )
    used = simulation.settings.num_blocks - row[Replica.FREE]
    remaining = row[Replica.TOKENS] - context - row[Replica.PENDING]
    return np.stack(
        [
            row[Replica.WAITING],
            row[Replica.MEMBERS],
            row[Replica.DECODING],
            row[Replica.PENDING],
            context,
            used,
            remaining,
        ]
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_each_decision_sees_the_same_cluster(data, draw_case, vidur_config, compiled):
    case = draw_case(data)
    assume(case.rule in HEURISTIC_NAMES)
    vidur = VidurSimulation(vidur_config(case), case.table)
    expected = seen_in_vidur(vidur)
    event("some are preempted" if any(r.num_restarts for r in vidur.requests) else "none is")
    ours = compiled(vidur_config(case, scheduler="ppo_modular"), case.table)
    for request, rows in enumerate(expected):
        assert ours.advance() == request
        np.testing.assert_array_equal(rows_of(ours), rows)
        ours.assign(int(vidur.routing[request]))
    assert ours.advance() == -1
    assert not rows_of(ours).any()
