"""TensorBoard events with ``global_step`` as x.

Importing this takes over a second: do so only where events are wanted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ppo_scheduler.monitoring.metrics_disk import metrics_disk_errors
from ppo_scheduler.monitoring.sink import Row


class TensorBoardSink:
    """Writes one event per scalar into a folder that ``tensorboard --logdir`` reads."""

    def __init__(self, log_dir: Path, resume_step: int | None, history: Iterable[Row] = ()) -> None:
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
            earlier = sorted(log_dir.glob("events.out.tfevents.*"))
            _name_before(int(time.time()), earlier)
            self._writer = SummaryWriter(str(log_dir), purge_step=resume_step or 0)
        if not earlier:
            for step, scalars in history:
                self.record(step, scalars)

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


def _name_before(second: int, files: list[Path]) -> None:
    """Rename events files, oldest first, if one of them would not sort before a new one.

    TensorBoard reads the files of a folder in the order of their names, which begin with the time
    in seconds; what a resume hides must have been read before, whatever the clock says.
    """
    if not any(int(file.name.split(".")[3]) >= second for file in files):
        return
    for earlier, file in enumerate(reversed(files), start=1):
        *prefix, _, rest = file.name.split(".", maxsplit=4)
        file.rename(file.with_name(".".join([*prefix, f"{second - earlier:010d}", rest])))
