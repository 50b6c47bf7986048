"""What every request stream is."""

from __future__ import annotations

from typing import Protocol

from vidur_ext.workload.request_table import RequestTable


class RequestStream(Protocol):
    """A sequence of requests that can be cut anywhere.

    Lengths and gaps between arrivals belong to the requests, so windows are slices of one stream:
    reading [0, 10) equals reading [0, 4) and [4, 10).
    """

    @property
    def num_requests(self) -> int | None:
        """How many requests there are; None without end."""

    def window(self, start: int, count: int) -> RequestTable:
        """Return requests [start, start + count); time 0 is the arrival of request start - 1.

        Raises:
            UserError: the stream ends before.
        """
