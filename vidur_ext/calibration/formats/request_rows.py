"""The requests of a file as they are read, and what all formats of them have in common."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vidur_ext.calibration.formats.values import Place
from vidur_ext.calibration.measurements import Requests
from vidur_ext.workload.request_table import RequestTable

_CLOCK_S = 1e-6
"""Times that were taken from one clock and subtracted are known so well."""


@dataclass
class RequestRows:
    """Collects requests in any order."""

    path: Path
    _rows: list[tuple[float, int, int, float, float]] = field(default_factory=list)
    _skipped: Counter[str] = field(default_factory=Counter)

    def add(
        self, where: str, arrival_s: float, prompt: int, output: int, ttft_s: float, e2e_s: float
    ) -> None:
        """Add a request that was answered.

        Raises:
            UserError: its last token came before its first one.
        """
        if e2e_s < ttft_s - _CLOCK_S:
            raise Place(self.path, where).error(
                f"the last token came {e2e_s:g} s after the request, before the first one at "
                f"{ttft_s:g} s; both must be in seconds from the request's arrival"
            )
        self._rows.append((arrival_s, prompt, output, ttft_s, max(e2e_s, ttft_s)))

    def skip(self, why: str) -> None:
        """Leave out a request that tells nothing about the server."""
        self._skipped[why] += 1

    def requests(self) -> Requests:
        """Return the requests in the order of their arrival, the first at time 0.

        Raises:
            UserError: there are too few.
        """
        rows = sorted(self._rows, key=lambda row: row[0])
        arrival, prompt, output, ttft, e2e = zip(*rows, strict=True) if rows else ((),) * 5
        at = np.array(arrival, dtype=np.float64)
        return Requests(
            path=self.path,
            table=RequestTable(
                at - at[:1].sum(),
                np.array(prompt, dtype=np.int64),
                np.array(output, dtype=np.int64),
            ),
            ttft_s=np.array(ttft, dtype=np.float64),
            e2e_s=np.array(e2e, dtype=np.float64),
            skipped=tuple(f"{number} {why} left out" for why, number in self._skipped.items()),
        )
