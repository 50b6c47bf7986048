from typing import Mapping, Protocol


class MetricsSink(Protocol):
    def record(self, global_step: int, scalars: Mapping[str, float]) -> None: ...
