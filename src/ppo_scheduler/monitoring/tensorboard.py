"""TensorBoard events with ``global_step`` as x.

Importing this takes over a second: do so only where events are wanted.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ppo_scheduler.monitoring.scalars import ScalarRow, metrics_disk_errors


class TensorBoardSink:
    """Writes one event per scalar into a folder that ``tensorboard --logdir`` reads."""

    def __init__(
        self, log_dir: Path, resume_step: int | None, history: Iterable[ScalarRow] = ()
    ) -> None:
        """Open a new events file.

        Args:
            resume_step: ``global_step`` of the checkpoint that a resume continues from. TensorBoard
                hides what earlier processes wrote at that step and later: the learner records an
                update before it counts the decision that made the rollout full, so it is from after
                the checkpoint. None is a new training, which hides all that the folder held.
            history: what the resumed training has recorded; a folder without events gets it again.

        Raises:
            UserError: the folder cannot be written.
        """
        self._log_dir = log_dir
        with metrics_disk_errors(log_dir):
            if not _events_in(log_dir):
                _write_history(log_dir, history)
            _name_before(int(time.time()), _events_in(log_dir))
            self._writer = SummaryWriter(str(log_dir), purge_step=resume_step or 0)

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        """Write the events; after the call a killed process does not lose them any more."""
        with metrics_disk_errors(self._log_dir):
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, global_step)
            # Unflushed, events of before the checkpoint would be missing after a crash.
            self._writer.flush()

    def close(self) -> None:
        with metrics_disk_errors(self._log_dir):
            self._writer.close()


def _events_in(folder: Path) -> list[Path]:
    """Return the events files of a folder in the order in which TensorBoard reads them."""
    return sorted(folder.glob("events.out.tfevents.*"))


def _write_history(log_dir: Path, history: Iterable[ScalarRow]) -> None:
    """Write a file that shows when it is whole: half a history would never be completed."""
    rows = iter(history)
    first = next(rows, None)
    if first is None:
        return
    unfinished = log_dir.with_name(f".{log_dir.name}.tmp")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    with SummaryWriter(str(unfinished)) as writer:
        for step, scalars in itertools.chain([first], rows):
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
    log_dir.mkdir(parents=True, exist_ok=True)
    for file in unfinished.iterdir():
        file.rename(log_dir / file.name)
    unfinished.rmdir()


def _name_before(second: int, files: list[Path]) -> None:
    """Rename events files, oldest first, if one of them would not sort before a new one.

    TensorBoard reads the files of a folder in the order of their names, which begin with the time
    in seconds; what a resume hides must have been read before, whatever the clock says. A file's
    name only ever becomes earlier, and no file's before that of its predecessor: a process killed
    between two renames leaves the order as it was.
    """
    names = []
    for file in reversed(files):
        *prefix, stamp, rest = file.name.split(".", maxsplit=4)
        second = min(int(stamp), second - 1)
        names.append(".".join([*prefix, f"{second:010d}", rest]))
    for file, name in zip(files, reversed(names), strict=True):
        if name != file.name:
            file.rename(file.with_name(name))
