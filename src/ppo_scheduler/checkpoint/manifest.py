"""The manifest: a readable JSON file beside each checkpoint that says what it is."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ppo_scheduler.checkpoint.unusable import UnusableCheckpoint

SCHEMA_VERSION = 1


class Manifest(BaseModel):
    """What a checkpoint holds and where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    """Version of this manifest and of the tree in the checkpoint."""
    file: str
    """Name the checkpoint was published under."""
    ppo_step: int = Field(ge=0)
    """``Learner.decide`` calls so far, over all resumes."""
    global_step: int = Field(ge=0)
    """Routing decisions so far, over all environments and resumes: TensorBoard's x."""
    created_at: str
    """UTC time of the publication, ISO 8601 with its offset."""
    size_bytes: int = Field(ge=0)
    sha256: str
    versions: dict[str, str]
    """Versions of Python and of the packages the numbers depend on."""
    config_digest: str
    """Digest of the settings the training ran with."""
    run_dir: str
    """Folder of the run: its log, events and metrics."""
    num_replicas: int = Field(ge=1)
    reason: str
    """Why it was saved: interval, end, signal, …"""
    facts: dict[str, str | int | float]
    """Whatever else the training wants a person to know."""

    @field_validator("created_at")
    @classmethod
    def _has_an_offset(cls, text: str) -> str:
        if datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("the time lacks its UTC offset")
        return text

    def to_json(self) -> bytes:
        """Return the content of the manifest's file."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    def misfit(self, data: bytes) -> str | None:
        """Return why ``data`` is not what the manifest describes, None if it is."""
        if len(data) != self.size_bytes:
            return f"damaged: it has {len(data)} bytes, its manifest says {self.size_bytes}"
        if hashlib.sha256(data).hexdigest() != self.sha256:
            return "damaged: its SHA-256 is not the one in its manifest"
        return None


def manifest_path(checkpoint: Path) -> Path:
    """Return where the manifest of a checkpoint is."""
    return checkpoint.with_suffix(".json")


def parse_manifest(content: bytes, checkpoint: Path) -> Manifest:
    """Return the manifest in ``content``; ``checkpoint`` is for the error.

    Raises:
        UnusableCheckpoint: it is not a manifest, or one of a newer version.
    """
    name = manifest_path(checkpoint).name
    try:
        document = json.loads(content)
    except ValueError as error:
        raise UnusableCheckpoint(checkpoint, f"{name} beside it is not JSON ({error})") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UnusableCheckpoint(
            checkpoint,
            f"{name} beside it has schema_version {version}, this program reads up to "
            f"{SCHEMA_VERSION}: use the newer program that wrote it",
        )
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnusableCheckpoint(
            checkpoint, f"{name} beside it is not a manifest ({where}: {first['msg']})"
        ) from error
