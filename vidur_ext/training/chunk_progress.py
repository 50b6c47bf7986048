"""How ``training_progress.json`` changes: each change returns a new, valid record."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.progress import ChunkRecord, TrainingProgress
from vidur_ext.training.chunk_plan import plan
from vidur_ext.training.run_folder import RunFolder

_Changes = dict[int, tuple[str, str | None]]
"""New status and checkpoint of chunks, by their ids."""


def planned(
    config: TrainingConfig,
    size: int,
    folder: RunFolder,
    *,
    config_file: Path,
    external: Path | None,
    done: int,
    checkpoint: str | None,
    now: datetime,
) -> TrainingProgress:
    """Return the record of a training that begins, or goes on, with ``done`` requests trained.

    The last chunk is completed by its process alone, never by what was trained before.
    """
    total = config.training.total_requests
    slices = plan(total, size)
    behind = [part.stop <= done and part is not slices[-1] for part in slices]
    chunks = tuple(
        ChunkRecord(
            chunk_id=part.chunk_id,
            status="completed" if over else "pending",
            requests=part.requests,
            checkpoint=checkpoint if over else None,
            log_file=str(folder.chunk_log(part.chunk_id)),
            timestamp=_text(now) if over else None,
        )
        for part, over in zip(slices, behind, strict=True)
    )
    return TrainingProgress(
        total_chunks=len(slices),
        chunk_size=size,
        total_requests=total,
        completed_chunks=sum(behind),
        requests_done=min(done, total),
        latest_checkpoint=checkpoint,
        start_time=_text(now),
        last_update=_text(now),
        end_time=None,
        status="running",
        error_message=None,
        output_dir=str(folder.path),
        config_file=str(config_file),
        external_pretrain=None if external is None else str(external),
        num_replicas=config.cluster.num_replicas,
        qps=config.workload.qps,
        chunks=chunks,
    )


def trained(
    progress: TrainingProgress, done: int, checkpoint: str | None, now: datetime
) -> TrainingProgress:
    """Return the record with what the checkpoints hold.

    Chunks behind it are completed; what is not behind it any more is pending again.
    """
    total = progress.total_requests
    changes: _Changes = {}
    for part in plan(total, progress.chunk_size):
        was = progress.chunks[part.chunk_id - 1].status
        if part.stop > done and was == "completed":
            changes[part.chunk_id] = ("pending", None)
        elif part.stop <= done and part.stop < total and was != "completed":
            changes[part.chunk_id] = ("completed", checkpoint)
    progress = _with_chunks(progress, now, changes)
    return _changed(progress, now, requests_done=min(done, total), latest_checkpoint=checkpoint)


def running(progress: TrainingProgress, chunk_id: int, now: datetime) -> TrainingProgress:
    """Return the record with a chunk whose process has been started."""
    begun = _with_chunks(progress, now, {chunk_id: ("running", None)})
    return _changed(begun, now, status="running", error_message=None, end_time=None)


def completed(
    progress: TrainingProgress, chunk_id: int, checkpoint: str, now: datetime
) -> TrainingProgress:
    """Return the record with a chunk whose process has ended well."""
    return _with_chunks(progress, now, {chunk_id: ("completed", checkpoint)})


def failed(
    progress: TrainingProgress, chunk_id: int, message: str, now: datetime
) -> TrainingProgress:
    """Return the record with a chunk whose process has not."""
    broken = _with_chunks(progress, now, {chunk_id: ("failed", None)})
    return _changed(broken, now, status="failed", error_message=message, end_time=_text(now))


def _with_chunks(progress: TrainingProgress, now: datetime, changes: _Changes) -> TrainingProgress:
    """Return the record with chunks of another status and checkpoint, by their ids."""
    records = list(progress.chunks)
    for chunk_id, (status, checkpoint) in changes.items():
        old = dict(records[chunk_id - 1])
        new = {"status": status, "checkpoint": checkpoint, "timestamp": _text(now)}
        records[chunk_id - 1] = ChunkRecord(**{**old, **new})
    count = sum(chunk.status == "completed" for chunk in records)
    change: dict[str, Any] = {"chunks": tuple(records), "completed_chunks": count}
    if count == len(records):
        change |= {"status": "completed", "end_time": _text(now), "error_message": None}
    elif progress.status == "completed":
        change |= {"status": "running", "end_time": None}
    return _changed(progress, now, **change)


def _changed(progress: TrainingProgress, now: datetime, **change: Any) -> TrainingProgress:
    return TrainingProgress(**{**dict(progress), **change, "last_update": _text(now)})


def _text(now: datetime) -> str:
    return now.isoformat(timespec="seconds")
