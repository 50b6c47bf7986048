"""Moving checkpoints aside, so that a new training never touches those of another one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from itertools import count
from pathlib import Path

from ppo_scheduler.checkpoint.disk import move_checkpoint, sync_folder
from ppo_scheduler.checkpoint.names import ARCHIVE, LATEST, CheckpointName


def move_aside(
    folder: Path, names: Sequence[CheckpointName], now: datetime, *, with_latest: bool
) -> Path | None:
    """Move checkpoints into a new ``archive/<UTC timestamp>[_n]/`` of the folder.

    The oldest goes first: interrupted at any point, the newest of either place is a whole
    checkpoint, and the next call moves the rest.

    Args:
        with_latest: move ``latest.pt`` along; it is relative and still leads to its checkpoint.

    Returns:
        The new folder, or None if there was nothing to move.
    """
    files = [name.file for name in sorted(names)]
    if with_latest and os.path.lexists(folder / LATEST):
        files.append(LATEST)
    if not files:
        return None
    aside = _new_folder(folder / ARCHIVE, now)
    for file in files:
        move_checkpoint(folder / file, aside / file)
    return aside


def _new_folder(archive: Path, now: datetime) -> Path:
    archive.mkdir(exist_ok=True)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    for number in count(1):
        folder = archive / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        sync_folder(archive)
        sync_folder(archive.parent)
        return folder
    raise AssertionError("unreachable")
