"""``training_progress.json``: what of a training in chunks is done, for people and programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from ppo_scheduler.checkpoint.disk import disk_errors, reveal, write_staged
from ppo_scheduler.errors import UserError

PROGRESS_FILE = "training_progress.json"
SCHEMA_VERSION = 1


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

    schema_version: Literal[1] = 1
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
        if [chunk.chunk_id for chunk in self.chunks] != list(range(1, self.total_chunks + 1)):
            raise ValueError(f"chunks are not numbered from 1 to total_chunks={self.total_chunks}")
        if sum(chunk.requests for chunk in self.chunks) != self.total_requests:
            raise ValueError(f"the chunks do not add up to total_requests={self.total_requests}")
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
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: has schema_version {version}, this program reads {SCHEMA_VERSION}: use the "
            "program that wrote it, or start a new training in another folder"
        )
    try:
        return TrainingProgress.model_validate_json(content)
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
    text = json.dumps(progress.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    with disk_errors(path, "the progress was not written", "Free space or rights there"):
        write_staged(path, text.encode("utf-8", "surrogateescape"))
        reveal(path)


_WAYS_OUT = (
    "Restore it from a backup, or move it away and continue the training with --chunk-mode "
    "--resume latest, which makes it anew from the checkpoints"
)
