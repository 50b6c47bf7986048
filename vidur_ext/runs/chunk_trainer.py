"""Training in chunks: one process after the other, the record up to date at every step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from ppo_scheduler.errors import Interrupted, UserError
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs import chunk_record
from vidur_ext.runs.chunk_process import (
    HEADING,
    Ended,
    Follower,
    Signals,
    last_lines,
    run_chunk,
)
from vidur_ext.runs.chunk_record import Slice, TrainingProgress, next_slice, plan, write_progress
from vidur_ext.runs.chunk_recovery import newest_of_run
from vidur_ext.runs.ownership import OwnedRun
from vidur_ext.runs.pipeline import training_job
from vidur_ext.runs.resume_choice import requests_done
from vidur_ext.runs.start import Start
from vidur_ext.training.train import Job
from vidur_ext.vidur.flags import cli_flags

_LOG = logging.getLogger("ppo")
_SHOWN_LINES = 5


class ChunkTrainer:
    """A ``Trainer`` whose chunks are processes of their own."""

    def __init__(self, progress: TrainingProgress, *, quiet: bool) -> None:
        self.progress = progress
        self._quiet = quiet

    def __call__(self, start: Start, owned: OwnedRun) -> None:
        """Train what is left.

        Raises:
            UserError: a chunk failed.
            Interrupted: a signal asked to stop; the chunk has saved.
        """
        slices = plan(self.progress.total_requests, self.progress.chunk_size)
        load = start.load_checkpoint
        signals = Signals()
        with signals.listening():
            while True:
                done = self.progress.requests_done
                finished = self.progress.status == "completed"
                part = next_slice(slices, done, finished=finished)
                if part is None:
                    break
                self._stop_if_asked(signals)
                self._train(part, start, owned, load, signals)
                load = "latest"
        _LOG.info("all %d chunks are trained", len(slices))

    def _train(
        self, part: Slice, start: Start, owned: OwnedRun, load: str | None, signals: Signals
    ) -> None:
        folder, lock = owned.folder, owned.owner.lock
        assert lock is not None, "chunks go on from what is saved"
        count, log = self.progress.total_chunks, folder.chunk_log(part.chunk_id)
        _LOG.info(
            "chunk %d of %d: requests %d to %d", part.chunk_id, count, part.start, part.stop - 1
        )
        self._write(folder, chunk_record.running(self.progress, part.chunk_id, _now()))
        job = training_job(start, owned, load, part.stop)
        flags, show = chunk_flags(job, folder, lock), self._follower(folder, log)
        ended = run_chunk(flags, log, signals, show, handles=[lock])
        newest = newest_of_run(start.config, folder)
        done = 0 if newest is None else requests_done(newest)
        checkpoint = None if newest is None else str(newest.path)
        if newest is not None:
            self._write(folder, chunk_record.trained(self.progress, done, checkpoint, _now()))
        if ended.status == 0 and done >= part.stop and checkpoint is not None:
            done_now = chunk_record.completed(self.progress, part.chunk_id, checkpoint, _now())
            self._write(folder, done_now)
            _LOG.info("chunk %d: peak memory %.0f MB", part.chunk_id, ended.peak_rss_mb)
            return
        self._fail(part, folder, ended, log, signals)

    def _fail(
        self, part: Slice, folder: RunFolder, ended: Ended, log: Path, signals: Signals
    ) -> None:
        """Write down and tell that a chunk did not come to its end."""
        why = "".join(f": {line}" for line in last_lines(log, 1))
        message = f"stopped: {ended}" if signals.stop is not None else f"{ended}{why}"
        self._write(folder, chunk_record.failed(self.progress, part.chunk_id, message, _now()))
        self._stop_if_asked(signals)
        shown = "\n".join(f"  {line}" for line in last_lines(log, _SHOWN_LINES))
        raise UserError(
            f"chunk {part.chunk_id} {ended}; {self._saved()}. Start again with --chunk-mode to go "
            f"on from there. The end of {log}:\n{shown}"
        )

    def _stop_if_asked(self, signals: Signals) -> None:
        if signals.stop is not None:
            raise Interrupted(signals.stop, f"{self._saved()}. Start again to go on from there")

    def _saved(self) -> str:
        progress = self.progress
        if progress.latest_checkpoint is None:
            return f"none of the {progress.total_requests} requests are saved"
        return (
            f"{progress.requests_done} of {progress.total_requests} requests are saved in "
            f"{progress.latest_checkpoint}"
        )

    def _write(self, folder: RunFolder, progress: TrainingProgress) -> None:
        self.progress = progress
        write_progress(folder.progress, progress)

    def _follower(self, folder: RunFolder, log: Path) -> Callable[[], None]:
        """Return what shows a chunk on the terminal: all it prints, or warnings only."""
        if self._quiet:
            return Follower(folder.log, sys.stderr.write, _is_warning)
        return Follower(log, sys.stderr.write, lambda line: not line.startswith(HEADING))


def chunk_flags(job: Job, folder: RunFolder, lock: int) -> list[str]:
    """Return the command line of ``python -m vidur_ext.main`` that does a training.

    Args:
        lock: handle of the checkpoint folder's lock, for the process to inherit.
    """
    return cli_flags(
        job.config,
        "ppo_modular",
        metrics_dir=str(folder.simulator),
        run_dir=job.run_dir,
        pretrained_actor=None if job.pretrained_actor is None else str(job.pretrained_actor),
        load_checkpoint=job.load_checkpoint,
        stop_at_requests=job.stop_at_requests,
        lock=lock,
    )


def _is_warning(line: str) -> bool:
    _, level, *_ = [*line.split(" ", 2), ""]
    return level in ("WARNING", "ERROR", "CRITICAL")


def _now() -> datetime:
    return datetime.now(timezone.utc)
