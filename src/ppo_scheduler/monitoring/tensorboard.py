"""TensorBoard events with ``global_step`` as x."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class TensorBoardSink:
    """Writes events; after a resume, points later than ``purge_step`` are hidden."""

    def __init__(self, log_dir: Path, purge_step: int | None) -> None:
        # TensorBoard hides what an earlier process wrote at or after the purge step.
        purge = None if purge_step is None else purge_step + 1
        self._writer = SummaryWriter(str(log_dir), purge_step=purge, flush_secs=10)

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, global_step)

    def close(self) -> None:
        self._writer.close()
