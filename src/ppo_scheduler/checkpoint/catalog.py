"""What is in a checkpoint folder, by names and manifests alone: fast, and nothing is verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.checkpoint.disk import disk_errors, file_names
from ppo_scheduler.checkpoint.manifest import Manifest, manifest_path, parse_manifest
from ppo_scheduler.checkpoint.names import ARCHIVE, present
from ppo_scheduler.checkpoint.unusable import UnusableCheckpoint
from ppo_scheduler.errors import UserError


@dataclass(frozen=True)
class Entry:
    """A checkpoint: what its manifest says, or why it says nothing."""

    path: Path
    step: int
    manifest: Manifest | None
    problem: str | None
    """Why there is no manifest; None if there is one."""
    archive: str | None
    """Name of the archive folder it is in; None where a training may continue it."""


def catalog(folder: Path, *, archives: bool) -> list[Entry]:
    """Return the checkpoints of a folder, oldest first; those of its archives come before.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder. Name the checkpoints' folder with --dir, or with "
            "--config the config whose checkpointing.checkpoint_dir it is"
        )
    archived = _archives(folder) if archives else []
    return [entry for below in archived for entry in _entries(below, below.name)] + _entries(
        folder, None
    )


def newest(entries: Sequence[Entry]) -> Entry | None:
    """Return the newest that a training may continue, as far as manifests tell."""
    live = [entry for entry in entries if entry.archive is None and entry.manifest is not None]
    return live[-1] if live else None


def recorded_keep_every(entries: Sequence[Entry]) -> int | None:
    """Return ``checkpointing.keep_every`` of the training that wrote the newest."""
    last = newest(entries)
    recorded = last and last.manifest and last.manifest.settings.get("checkpointing.keep_every")
    return recorded if isinstance(recorded, int) else None


def _archives(folder: Path) -> list[Path]:
    with disk_errors(folder, "the archive cannot be listed", "Check its rights"):
        try:
            return sorted(path for path in (folder / ARCHIVE).iterdir() if path.is_dir())
        except FileNotFoundError:
            return []


def _entries(folder: Path, archive: str | None) -> list[Entry]:
    found = []
    for name in present(file_names(folder)):
        path = folder / name.file
        try:
            manifest, problem = _manifest(path), None
        except UnusableCheckpoint as bad:
            manifest, problem = None, bad.reason
        if path.exists():  # not pruned meanwhile
            found.append(Entry(path, name.step, manifest, problem, archive))
    return found


def _manifest(path: Path) -> Manifest:
    beside = manifest_path(path)
    try:
        return parse_manifest(beside.read_bytes(), path)
    except OSError as error:
        raise UnusableCheckpoint(path, f"{beside.name} beside it: {error.strerror}") from error
