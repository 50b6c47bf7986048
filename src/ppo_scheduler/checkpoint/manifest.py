"""The manifest: a readable JSON file beside each checkpoint that says what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator
from pydantic_core import to_json

from ppo_scheduler.checkpoint.migrations import SCHEMA_VERSION, migrate_manifest
from ppo_scheduler.errors import UserError, printable
from ppo_scheduler.sealed_json import is_sealed, sealed


class UnusableCheckpoint(UserError):
    """A checkpoint that is incomplete, damaged, refused, or of another version.

    ``path`` is the checkpoint (the ``.pt`` file), ``reason`` what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = printable(reason)


_CHECKSUM = "manifest_sha256"


Reason = Literal[
    "start",
    "interval",
    "episode",
    "time",
    "validation",
    "manual",
    "chunk_end",
    "signal",
    "exception",
    "end",
]
"""Why a state is saved."""


class Description(BaseModel):
    """What a training says of the state it saves."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    ppo_step: int = Field(ge=0)
    """``Learner.decide`` calls so far, over all resumes."""
    global_step: int = Field(ge=0)
    """Routing decisions so far, over all environments and resumes: TensorBoard's x."""
    reason: Reason
    run_dir: str
    """Folder of the run: its log, events and metrics."""
    config_digest: str
    """Digest of all settings the training ran with."""
    num_replicas: int = Field(ge=1)
    val_score: float | None
    """Validation at this very step, greater is better; None without one."""
    versions: dict[str, str]
    """Versions of Python and of the packages the numbers depend on."""
    facts: dict[str, str | int | float]
    """Whatever else the training wants a person to know."""
    settings: dict[str, JsonValue]
    """The settings by name, for people and for deciding what a resume may change."""


class Manifest(Description):
    """What a checkpoint holds and where it comes from."""

    schema_version: int = Field(ge=1, le=SCHEMA_VERSION)
    """Version the checkpoint was written in; older ones are migrated when they are read."""
    file: str
    """Name the checkpoint was published under."""
    created_at: str
    """UTC time of the publication, ISO 8601 with its offset."""
    size_bytes: int = Field(ge=0)
    sha256: str
    parts: list[str]
    """Names of the parts of the tree; a checkpoint without one of them is not complete."""

    @field_validator("created_at")
    @classmethod
    def _has_an_offset(cls, text: str) -> str:
        if datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("the time lacks its UTC offset")
        return text

    def to_json(self) -> bytes:
        """Return the content of the manifest's file, which carries its own checksum."""
        document = self.model_dump(mode="json")
        settings = document.pop("settings")
        first = {"schema_version": self.schema_version, "file": self.file}
        text = to_json({**first, **document, "settings": settings}, indent=2)
        return sealed(text, _CHECKSUM)

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
    """Return the manifest in ``content``, migrated; ``checkpoint`` is for the error.

    Raises:
        UnusableCheckpoint: it is no manifest, damaged, or one of a newer version.
    """
    name = manifest_path(checkpoint).name

    def unusable(reason: str) -> UnusableCheckpoint:
        return UnusableCheckpoint(checkpoint, f"{name} beside it {reason}")

    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise unusable(f"is not JSON ({error})") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise unusable("is not a manifest (schema_version: missing)")
    if version > SCHEMA_VERSION:
        raise unusable(
            f"has schema_version {version}, this program reads up to {SCHEMA_VERSION}: use the "
            "newer program that wrote it"
        )
    if not all(text.isprintable() for text in _texts(document)):
        raise unusable("is not a manifest (it holds texts that cannot be printed)")
    if version >= 2:
        if not is_sealed(content, _CHECKSUM):
            raise unusable("is damaged or was edited: its manifest_sha256 is another")
        del document[_CHECKSUM]
    try:
        return Manifest.model_validate_json(json.dumps(migrate_manifest(document, version)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise unusable(f"is not a manifest ({where}: {first['msg']})") from error


def _texts(node: object) -> Iterator[str]:
    """Yield every text and every name of a key in a JSON value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        yield from node
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
