"""One driver per run, and no trainer beside the one of a driver that died."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppo_scheduler.checkpoint.disk import disk_errors
from ppo_scheduler.checkpoint.names import LOCK
from ppo_scheduler.errors import UserError

_LOG = logging.getLogger("ppo")
_DRIVER_LOCK = ".driver.lock"
_PATIENCE_S = 60.0
_POLL_S = 0.1


@contextmanager
def only_driver(run: Path) -> Iterator[None]:
    """Be the only process that drives the chunks of a run, until the block or the process ends.

    Raises:
        UserError: another process does.
    """
    with disk_errors(run, "the run cannot be locked", "Choose another --output-dir"):
        handle = os.open(run / _DRIVER_LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _locked(handle):
            raise UserError(
                f"{run}: process {_holder(handle)} is training there in chunks. Wait for it or "
                "stop it, or begin another training with an --output-dir and a "
                "checkpointing.checkpoint_dir of its own"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def wait_for_writer(checkpoints: Path, patience_s: float = _PATIENCE_S) -> None:
    """Return when nobody writes to a checkpoint folder: a dead driver's chunk is saving there.

    Raises:
        UserError: somebody still does after ``patience_s``.
    """
    try:
        handle = os.open(checkpoints / LOCK, os.O_RDWR)
    except OSError:
        return  # nobody ever wrote there
    try:
        deadline = time.monotonic() + patience_s
        told = False
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise UserError(
                    f"{checkpoints}: process {_holder(handle)} is writing checkpoints there. Wait "
                    "for it or stop it, or give this training a checkpointing.checkpoint_dir of "
                    "its own"
                )
            if not told:
                _LOG.warning("waiting for process %s to save and end", _holder(handle))
                told = True
            time.sleep(_POLL_S)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> str:
    return os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "(not yet known)"
