"""What every request stream is, and the clock that makes cutting it exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.workload.request_table import RequestTable

_TICKS_PER_SECOND = 2.0**30
_MAX_TICKS = 2.0**62


class RequestStream(Protocol):
    """A sequence of requests that can be cut anywhere.

    Lengths and gaps between arrivals belong to the requests, so windows are slices of one stream:
    reading [0, 10) equals reading [0, 4) and then [4, 10), to the last bit. A window cuts closed
    loops: a turn whose previous one lies before it arrives at its nominal time.
    """

    @property
    def num_requests(self) -> int | None:
        """How many requests there are; None: without end."""

    def window(self, start: int, count: int) -> RequestTable:
        """Return requests [start, start + count); time 0 is the arrival of request start - 1.

        At start 0 it is the beginning of the stream: of a trace, the arrival of its first request.

        Raises:
            UserError: the stream ends before, or no such window can exist.
        """


def check_drawn(stream: Any, more: Iterable[tuple[str, bool, str]]) -> None:
    """Check the attributes that all streams have whose requests are drawn, and ``more``.

    Args:
        more: names of further ones, whether each is valid, and what is expected.

    Raises:
        UserError: one is out of its range.
    """
    arrival, cv = stream.arrival, stream.burstiness_cv
    for name, valid, expected in (
        ("seed", stream.seed >= 0, "an integer >= 0"),
        ("variant", stream.variant >= 0, "an integer >= 0"),
        ("arrival", arrival in ("poisson", "gamma"), "poisson or gamma"),
        ("burstiness_cv", 0.0 < cv <= 20.0, "a number above 0, at most 20"),
        ("max_tokens", stream.max_tokens >= 2, "an integer >= 2"),
        *more,
    ):
        if not valid:
            raise UserError(f"workload {name}={getattr(stream, name)!r}: expected {expected}")


def to_ticks(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return times or gaps in whole ticks of 2^-30 s (0.93 ns).

    Integers add up without rounding, and as float64 seconds they are exact for 97 days: that is
    why gaps do not depend on where a stream is cut.

    Raises:
        UserError: a time is beyond 136 years.
    """
    ticks = np.rint(seconds * _TICKS_PER_SECOND)
    if ticks.size and float(ticks.max()) > _MAX_TICKS:
        raise UserError(
            "arrivals of the request stream span more than 136 years; raise qps or rate_scale"
        )
    return ticks.astype(np.int64)


def to_seconds(ticks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ticks as seconds."""
    return ticks / _TICKS_PER_SECOND


def check_window(start: int, count: int, num_requests: int | None) -> None:
    """Raise ``UserError`` unless requests [start, start + count) exist in the stream."""
    if start < 0 or count < 1:
        raise UserError(
            f"a window of a request stream starts at 0 or later and holds at least one request; "
            f"{count} from request {start} were asked for"
        )
    if num_requests is not None and start + count > num_requests:
        raise UserError(
            f"requests {start} to {start + count - 1} were asked for, but the stream holds "
            f"{num_requests} (0 to {num_requests - 1}); ask for fewer or give a longer trace"
        )
