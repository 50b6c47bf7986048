"""Where scalars go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

Row = tuple[int, Mapping[str, float]]
"""``global_step`` and the scalars recorded at it."""


class MetricsRecorder(Protocol):
    """Takes scalars; x is always ``global_step``, the number of routing decisions.

    When ``record`` returns, the operating system has the record, so a checkpoint that is taken
    afterwards never knows of an update that a crash could still take away.
    """

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None: ...


class MetricsSink(MetricsRecorder, Protocol):
    """A recorder that is closed at the end."""

    def close(self) -> None: ...


class FanOut:
    """Hands every record to all sinks."""

    def __init__(self, sinks: Sequence[MetricsSink]) -> None:
        self._sinks = sinks

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.record(global_step, scalars)

    def close(self) -> None:
        """Close all sinks, also when one of them cannot be."""
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.callback(sink.close)
