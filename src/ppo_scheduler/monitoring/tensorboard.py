"""TensorBoard events with ``global_step`` as x.

They are written here and now: the writers that come with TensorBoard and torch do it in a thread,
which dies at the first refusal of the disk. Importing this takes time: do so only where events are
wanted.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from ppo_scheduler.files import GrowingFile
from ppo_scheduler.monitoring.scalars import ScalarRow, metrics_disk_errors


class TensorBoardSink:
    """Writes one event per record into a folder that ``tensorboard --logdir`` reads."""

    def __init__(
        self, log_dir: Path, resume_step: int | None, history: Iterable[ScalarRow] = ()
    ) -> None:
        """Begin a new events file.

        Args:
            resume_step: ``global_step`` of the checkpoint that a resume continues from. TensorBoard
                hides what earlier processes wrote at that step and later: the learner records an
                update before it counts the decision that made the rollout full, so it is from after
                the checkpoint. None is a new training, which hides all that the folder held.
            history: what the resumed training has recorded. What of it comes after the last record
                of the folder, or is that record, which a crash may have cut, is written again.

        Raises:
            UserError: the folder cannot be written.
        """
        self._log_dir = log_dir
        with metrics_disk_errors(log_dir):
            log_dir.mkdir(parents=True, exist_ok=True)
            earlier = sorted(log_dir.glob("events.out.tfevents.*"))
            hidden_from = resume_step or 0
            shown = min(_last_step(earlier), hidden_from)
            lacking = [row for row in history if row[0] >= shown]
            if lacking:
                hidden_from = lacking[0][0]
            version = _framed(Event(wall_time=time.time(), file_version="brain.Event:2"))
            self._file = GrowingFile(log_dir / _name_after(earlier), version)
            beginning = Event(step=hidden_from, session_log=SessionLog(status=SessionLog.START))
            self._file.append(_framed(beginning))
        for row in lacking:
            self.record(*row)

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        """Write the event; after the call a killed process does not lose it any more."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = Event(wall_time=time.time(), step=global_step, summary=Summary(value=values))
        with metrics_disk_errors(self._log_dir):
            self._file.append(_framed(event))

    def close(self) -> None:
        """Nothing is held open."""


def _framed(event: Event) -> bytes:
    """Return an event as a record of the file."""
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()


def _name_after(files: list[Path]) -> str:
    """Return the name of a file that TensorBoard reads after ``files``, given in their order.

    It reads the files of a folder in the order of their names, which begin with the time in
    seconds; what a resume hides must have been read before, whatever the clock says.
    """
    last = int(files[-1].name.split(".")[3]) if files else 0
    stamp = max(int(time.time()), last + 1)
    return f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}"


def _last_step(files: list[Path]) -> int:
    """Return the step of the last whole record in ``files``; 0 if there is none, or it is damaged.

    A record is its length [8 bytes], the length's checksum [4], an event, and its checksum [4].
    """
    for file in reversed(files):
        content = file.read_bytes()
        start = end = at = 0
        while at + 16 <= len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            if at + 16 + length > len(content):
                break
            start, end = at + 12, at + 12 + length
            at = end + 4
        if end:
            (checksum,) = struct.unpack_from("<I", content, end)
            event = content[start:end]
            return int(Event.FromString(event).step) if masked_crc32c(event) == checksum else 0
    return 0
