"""How far a cell is, told from what it leaves on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from vidur_ext.runs.status import status_of
from vidur_ext.suite.plan import Cell

Stage = Literal["waiting", "warm start", "training", "comparison", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Progress:
    """A cell at one moment.

    Attributes:
        share: of the decisions that are trained; None unless it is training.
        seconds: since its process was started; None without one.
    """

    stage: Stage
    share: float | None = None
    seconds: float | None = None


def progress_of(cell: Cell, seconds: float) -> Progress:
    """Return how far a cell is that has been running for ``seconds``."""
    folder = cell.folder
    if cell.done:
        return Progress("done", seconds=seconds)
    if folder.policy.exists():
        return Progress("comparison", seconds=seconds)
    if not folder.metrics.exists():
        return Progress("warm start", seconds=seconds)
    status = status_of(folder, datetime.now(timezone.utc))
    return Progress("training", status.decisions / status.total, seconds)
