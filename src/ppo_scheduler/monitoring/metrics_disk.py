"""What the operating system refuses while metrics are written."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from ppo_scheduler.checkpoint.disk import disk_errors


def metrics_disk_errors(path: Path) -> AbstractContextManager[None]:
    """Turn an ``OSError`` about ``path`` into a ``UserError`` that says how to go on."""
    return disk_errors(
        path,
        "metrics cannot be written",
        "Free some space or choose another --output-dir, then resume from the last checkpoint",
    )
