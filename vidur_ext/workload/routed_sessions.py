"""Which requests a router takes for those of one session."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vidur_ext.workload.prompts import Ints
from vidur_ext.workload.request_table import RequestTable


class RoutedSessions(NamedTuple):
    """The sessions of N requests, as a router knows them."""

    session: Ints
    """Whose each request is [N], numbered from 0."""
    before: Ints
    """The row [N] of the session's request before it, -1 for the first one."""


def routed_sessions(table: RequestTable) -> RoutedSessions:
    """Return whose the requests of a table are.

    Where sessions are not known, requests whose prompts begin with one segment are taken for those
    of a session; without texts each request is one of its own.
    """
    if table.sessions is not None:
        names = table.sessions.session
    elif table.prompts is not None:
        names = table.prompts.segments[table.prompts.first[:-1]]
    else:
        names = np.arange(len(table))
    session = np.unique(names, return_inverse=True)[1].astype(np.int64)
    together = np.argsort(session, kind="stable")
    goes_on = session[together[1:]] == session[together[:-1]]
    before = np.full(len(table), -1, dtype=np.int64)
    before[together[1:][goes_on]] = together[:-1][goes_on]
    return RoutedSessions(session, before)
