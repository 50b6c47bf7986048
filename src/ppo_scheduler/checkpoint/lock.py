"""One writer per checkpoint folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ppo_scheduler.checkpoint.names import LOCK
from ppo_scheduler.errors import UserError


class FolderLock:
    """Holds ``.lock`` of a folder until it is released or the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            UserError: another store writes to the folder; the text names its process.
            OSError: the file cannot be opened or locked.
        """
        self._handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take(folder)
        except BaseException:
            os.close(self._handle)
            raise

    def release(self) -> None:
        """Let others write. The file stays: deleting it could let two writers in."""
        os.close(self._handle)

    def _take(self, folder: Path) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
            raise UserError(
                f"{folder}: process {holder or '(not yet known)'} is writing checkpoints there. "
                "Wait for it or stop it, or give this training a checkpointing.checkpoint_dir of "
                "its own"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)
