"""``training_progress.json``: which requests each chunk trains, and what of them is done.

Chunk i covers requests [(i - 1) * size, i * size) of the stream, whatever was trained before and in
which process, so a plan depends on total and size alone. Each change returns a new, valid record.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, write_file
from ppo_scheduler.sealed_json import is_sealed, sealed
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder

PROGRESS_FILE = "training_progress.json"
PROGRESS_VERSION = 2
_CHECKSUM = "progress_sha256"


class DamagedProgress(UserError):
    """A progress file of this version that cannot be what was written."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _with_offset(text: str | None) -> str | None:
    if text is not None and datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("the time lacks its UTC offset")
    return text


class ChunkRecord(_Record):
    """One slice of the request stream, trained by a process of its own."""

    chunk_id: int = Field(ge=1)
    status: Literal["pending", "running", "completed", "failed"]
    requests: int = Field(ge=1)
    """Requests of the slice."""
    checkpoint: str | None = None
    """What the chunk saved at its end; None before."""
    log_file: str
    timestamp: str | None = None
    """When the status last changed, ISO 8601 with offset; None while pending."""

    _time = field_validator("timestamp")(_with_offset)


class TrainingProgress(_Record):
    """A training in chunks: its plan, its settings that must not change, and how far it is."""

    schema_version: Literal[2] = 2
    run_id: str
    """Which run it is the plan of; the folder and its checkpoints say the same."""
    replaces: str | None
    """SHA-256 of the newest checkpoint of the folder when the run began, whosever it was: what
    is there later and is not the run's own came from another training."""
    total_chunks: int = Field(ge=1)
    chunk_size: int = Field(ge=1)
    total_requests: int = Field(ge=1)
    completed_chunks: int = Field(ge=0)
    requests_done: int = Field(ge=0)
    """Requests trained that a checkpoint holds."""
    latest_checkpoint: str | None
    start_time: str
    last_update: str
    end_time: str | None
    status: Literal["running", "completed", "failed"]
    error_message: str | None
    output_dir: str
    config_file: str
    external_pretrain: str | None
    num_replicas: int = Field(ge=1)
    qps: float = Field(gt=0)
    chunks: tuple[ChunkRecord, ...]

    _times = field_validator("start_time", "last_update", "end_time")(_with_offset)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        """Chunks are numbered from 1, cover the total, and are counted right."""
        planned = [
            (part.chunk_id, part.requests) for part in plan(self.total_requests, self.chunk_size)
        ]
        if [(chunk.chunk_id, chunk.requests) for chunk in self.chunks] != planned:
            raise ValueError(
                f"the chunks are not those of total_requests={self.total_requests} by "
                f"chunk_size={self.chunk_size}"
            )
        if len(planned) != self.total_chunks:
            raise ValueError(f"there are {len(planned)} chunks, not {self.total_chunks}")
        completed = [chunk.status for chunk in self.chunks].count("completed")
        if completed != self.completed_chunks:
            raise ValueError(f"{completed} chunks are completed, not {self.completed_chunks}")
        if self.requests_done > self.total_requests:
            raise ValueError(f"requests_done={self.requests_done} is more than total_requests")
        if (self.status == "completed") != (completed == self.total_chunks):
            raise ValueError(f"status={self.status} with {completed} completed chunks")
        return self


def read_progress(path: Path) -> TrainingProgress:
    """Return what a progress file says.

    Raises:
        DamagedProgress: it is damaged or inconsistent.
        UserError: it cannot be read, or is of another version.
    """
    with disk_errors(path, "cannot be read as a progress file", "Check its path and rights"):
        content = path.read_bytes()
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedProgress(
            f"{path}: is damaged, it is not JSON ({error}). {_WAYS_OUT}"
        ) from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise DamagedProgress(f"{path}: is damaged, it has no schema_version. {_WAYS_OUT}")
    if version < PROGRESS_VERSION:
        raise DamagedProgress(
            f"{path}: has schema_version {version}, of an earlier program. {_WAYS_OUT}"
        )
    if version > PROGRESS_VERSION:
        raise UserError(
            f"{path}: has schema_version {version}, this program reads {PROGRESS_VERSION}: use the "
            "program that wrote it, or start a new training in another folder"
        )
    if not is_sealed(content, _CHECKSUM):
        raise DamagedProgress(
            f"{path}: is damaged or was edited, its {_CHECKSUM} is another. {_WAYS_OUT}"
        )
    del document[_CHECKSUM]
    try:
        return TrainingProgress.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "as a whole"
        raise DamagedProgress(
            f"{path}: is no progress file ({where}: {first['msg']}). {_WAYS_OUT}"
        ) from None


def write_progress(path: Path, progress: TrainingProgress) -> None:
    """Replace a progress file, atomically and durably.

    Raises:
        UserError: the disk refuses; the file is as it was.
    """
    text = json.dumps(progress.model_dump(mode="json"), indent=2, ensure_ascii=False)
    with disk_errors(path, "the progress was not written", "Free space or rights there"):
        write_file(path, sealed(text.encode("utf-8", "surrogateescape"), _CHECKSUM))


_WAYS_OUT = (
    "Restore it from a backup, or move it away and continue the training with --chunk-mode "
    "--resume latest, which makes it anew from the checkpoints"
)


_USUAL_CHUNKS = 8


@dataclass(frozen=True)
class Slice:
    """Requests [start, stop) of the stream; ``chunk_id`` counts from 1."""

    chunk_id: int
    start: int
    stop: int

    @property
    def requests(self) -> int:
        return self.stop - self.start


def usual_size(total: int, episode: int) -> int:
    """Return an eighth of all requests, rounded up to whole episodes.

    A chunk that ends with an episode leaves nothing to be simulated again by the next one.
    """
    episodes = -(-total // (_USUAL_CHUNKS * episode))
    return min(episodes * episode, total)


def plan(total: int, size: int) -> tuple[Slice, ...]:
    """Return the chunks of ``total`` requests, ``size`` each; the last one may be shorter."""
    return tuple(
        Slice(number, start, min(start + size, total))
        for number, start in enumerate(range(0, total, size), start=1)
    )


def next_slice(slices: tuple[Slice, ...], done: int, *, finished: bool) -> Slice | None:
    """Return what to train next when ``done`` requests are trained, None at the end.

    Args:
        finished: the process of the last chunk came to its end. Until then it is due once more,
            even with nothing left to train: it also writes the policy.
    """
    left = [part for part in slices if part.stop > done]
    if left:
        return left[0]
    return None if finished else slices[-1]


@dataclass(frozen=True)
class Order:
    """What the command line says about chunks and about the beginning of the training."""

    config_file: Path
    chunk_size: int | None
    """None is the usual size, or that of the training that goes on."""
    external: Path | None

    def size(self, config: TrainingConfig) -> int:
        """Return the size of the chunks of a new training.

        Raises:
            UserError: the environments cannot share a chunk evenly.
        """
        training, num_envs = config.training, config.parallel_training.num_envs
        if self.chunk_size is not None and self.chunk_size % num_envs:
            raise UserError(
                f"--chunk-size {self.chunk_size} is no multiple of parallel_training.num_envs="
                f"{num_envs}: choose {-(-self.chunk_size // num_envs) * num_envs}, or another "
                "num_envs"
            )
        together = training.episode_requests * num_envs
        return self.chunk_size or usual_size(training.total_requests, together)


_Changes = dict[int, tuple[str, str | None]]
"""New status and checkpoint of chunks, by their ids."""


def planned(
    config: TrainingConfig,
    size: int,
    folder: RunFolder,
    *,
    run_id: str,
    config_file: Path,
    external: Path | None,
    done: int,
    checkpoint: str | None,
    replaces: str | None,
    now: datetime,
) -> TrainingProgress:
    """Return the record of a training that begins, or goes on, with ``done`` requests trained.

    The last chunk is completed by its process alone, never by what was trained before.
    """
    total = config.training.total_requests
    slices = plan(total, size)
    over_before = [part.stop <= done and part is not slices[-1] for part in slices]
    chunks = tuple(
        ChunkRecord(
            chunk_id=part.chunk_id,
            status="completed" if over else "pending",
            requests=part.requests,
            checkpoint=checkpoint if over else None,
            log_file=str(folder.chunk_log(part.chunk_id)),
            timestamp=_text(now) if over else None,
        )
        for part, over in zip(slices, over_before, strict=True)
    )
    return TrainingProgress(
        run_id=run_id,
        replaces=replaces,
        total_chunks=len(slices),
        chunk_size=size,
        total_requests=total,
        completed_chunks=sum(over_before),
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

    Chunks that are in it are completed; what is not in it any more is pending again.
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
