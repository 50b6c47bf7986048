"""Sessions and closed loops: windows cut them, rates speed them up, nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import Sessions
from vidur_ext.workload.trace_stream import TraceStream

# Two sessions, turn about: rows 0, 2, 3 and rows 1, 4. The second was begun before the table.
SESSIONS = Sessions(
    np.array([7, 3, 7, 7, 3]),
    np.array([0, 4, 1, 2, 5]),
    np.array([-1, -1, 0, 2, 1]),
    np.array([0.0, 0.0, 2.0, 4.0, 8.0]),
)
TOKENS = np.arange(1, 6)


def table(sessions: Sessions | None = SESSIONS) -> RequestTable:
    return RequestTable(np.arange(5.0), TOKENS, TOKENS, sessions=sessions)


def test_a_turn_whose_previous_one_lies_before_the_window_arrives_at_its_own_time() -> None:
    part = table().slice(2, 5)
    assert part.sessions is not None
    assert part.sessions.previous.tolist() == [-1, 0, -1]
    assert part.sessions.think_s.tolist() == [0.0, 4.0, 0.0]
    assert part.sessions.session.tolist() == [7, 7, 3]
    assert part.sessions.turn.tolist() == [1, 2, 5]
    assert part.arrived_at.tolist() == [2.0, 3.0, 4.0]


def test_turns_that_follow_the_window_are_left_out() -> None:
    part = table().slice(0, 3).sessions
    assert part is not None
    assert part.previous.tolist() == [-1, -1, 0]


def test_a_trace_that_starts_again_has_new_sessions() -> None:
    sessions = TraceStream(table(), repeat=True).window(3, 7).sessions
    assert sessions is not None
    assert sessions.previous.tolist() == [-1, -1, -1, -1, 2, 4, 3]
    assert sessions.think_s.tolist() == [0.0, 0.0, 0.0, 0.0, 2.0, 4.0, 8.0]
    shift = sessions.session[2] - 7
    assert shift > 7
    assert sessions.session.tolist() == [
        7,
        3,
        7 + shift,
        3 + shift,
        7 + shift,
        7 + shift,
        3 + shift,
    ]
    assert sessions.turn.tolist() == [2, 5, 0, 4, 1, 2, 5]


def test_a_rate_scale_divides_think_times_too() -> None:
    faster = table().at_rate(2.0)
    assert faster.sessions is not None
    assert faster.sessions.think_s.tolist() == [0.0, 0.0, 1.0, 2.0, 4.0]
    assert faster.sessions.previous.tolist() == SESSIONS.previous.tolist()


def test_the_digest_tells_sessions_apart() -> None:
    digests = {table().digest(), table(None).digest(), table(SESSIONS.at_rate(2.0)).digest()}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("column", "row", "value", "expected"),
    [
        ("session", 1, -1, "request 1 of the sessions: its session is negative"),
        ("turn", 0, -1, "request 0 of the sessions: its turn is negative"),
        ("previous", 2, 2, "request 2 of the sessions: it waits for no earlier request"),
        ("previous", 2, -2, "request 2 of the sessions: it waits for no earlier request"),
        ("previous", 2, 1, "request 2 of the sessions: it waits for a request of another session"),
        ("previous", 3, 0, "request 2 of the sessions: another request waits for the same one"),
        ("think_s", 2, -1.0, "request 2 of the sessions: its think time is no number of seconds"),
        ("think_s", 2, np.inf, "request 2 of the sessions: its think time is no number"),
        ("think_s", 1, 1.0, "request 1 of the sessions: it has a think time and waits for nobody"),
    ],
)
def test_impossible_sessions_are_named(column: str, row: int, value: float, expected: str) -> None:
    columns = {
        name: getattr(SESSIONS, name).copy() for name in ("session", "turn", "previous", "think_s")
    }
    columns[column][row] = value
    with pytest.raises(UserError, match=expected):
        Sessions(**columns)


def test_sessions_of_other_requests_are_refused() -> None:
    with pytest.raises(UserError, match="sessions describes 5 requests; the table has 4"):
        RequestTable(np.arange(4.0), TOKENS[:4], TOKENS[:4], sessions=SESSIONS)


def test_closed_loops_are_told_from_open_ones() -> None:
    assert not table(None).waits
    assert not table().slice(0, 2).waits
    assert table().waits
