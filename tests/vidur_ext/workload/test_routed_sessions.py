"""Whose requests a router takes them for."""

from __future__ import annotations

import numpy as np

from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.routed_sessions import routed_sessions
from vidur_ext.workload.sessions import Sessions

TEXTS = [[(5, 10)], [(3, 4), (8, 6)], [(5, 7), (9, 3)], [(5, 10)], [(3, 10)]]
PROMPTS = Prompts.of(TEXTS, [100, 101, 102, 103, 104])


def table(prompts=None, sessions=None) -> RequestTable:
    return RequestTable(np.arange(5.0), np.full(5, 10), np.full(5, 2), prompts, sessions)


def test_known_sessions_are_numbered_and_their_turns_linked():
    nobody, no_time = np.full(5, -1), np.zeros(5)
    sessions = Sessions(np.array([70, 9, 70, 70, 9]), np.array([0, 0, 1, 2, 1]), nobody, no_time)
    known = routed_sessions(table(PROMPTS, sessions))
    assert known.session.tolist() == [1, 0, 1, 1, 0]
    assert known.before.tolist() == [-1, -1, 0, 2, 1]


def test_without_sessions_requests_go_by_the_first_segment_of_their_prompts():
    known = routed_sessions(table(PROMPTS))
    assert known.session.tolist() == [1, 0, 1, 1, 0]
    assert known.before.tolist() == [-1, -1, 0, 2, 1]


def test_without_texts_each_request_is_a_session_of_its_own():
    known = routed_sessions(table())
    assert known.session.tolist() == [0, 1, 2, 3, 4]
    assert known.before.tolist() == [-1] * 5
