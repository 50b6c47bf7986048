"""Where scalars go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class MetricsSink(Protocol):
    """Takes scalars; x is always ``global_step``, the number of routing decisions."""

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class FanOut:
    """Hands every record to all sinks."""

    def __init__(self, sinks: Sequence[MetricsSink]) -> None:
        self._sinks = sinks

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.record(global_step, scalars)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
