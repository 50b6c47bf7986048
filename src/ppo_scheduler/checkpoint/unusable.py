"""The error of a checkpoint that cannot be used."""

from __future__ import annotations

from pathlib import Path

from ppo_scheduler.errors import UserError


class UnusableCheckpoint(UserError):
    """A checkpoint that is incomplete, damaged, refused, or of another version.

    ``path`` is the checkpoint (the ``.pt`` file), ``reason`` what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
