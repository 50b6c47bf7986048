"""Reading and verifying checkpoints, also while a training publishes and prunes beside us; and what
is in a folder by names and manifests alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.checkpoint.manifest import (
    Manifest,
    UnusableCheckpoint,
    manifest_path,
    parse_manifest,
)
from ppo_scheduler.checkpoint.migrations import migrate_tree
from ppo_scheduler.checkpoint.names import ARCHIVE, parse, present
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors
from ppo_scheduler.state import StateDict

Skipped = list[tuple[Path, str]]


def file_names(folder: Path) -> set[str]:
    """Return the names of the regular files in a folder; empty if there is no folder.

    Raises:
        UserError: the folder cannot be read.
    """
    with disk_errors(folder, "the checkpoints cannot be listed", "Check checkpoint_dir"):
        try:
            with os.scandir(folder) as entries:
                return {entry.name for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return set()


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A verified checkpoint, and the newer ones that were skipped with the reason of each."""

    tree: StateDict
    manifest: Manifest
    path: Path
    skipped: Skipped


def read_named(path: Path) -> LoadedCheckpoint:
    """Read the checkpoint a user named; links are followed.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        if real.is_dir():
            raise UserError(f"{path}: is a folder; name a checkpoint_step_*.pt file in it")
        tree, manifest = _read(real)
    except FileNotFoundError:
        dangling = " (the link leads nowhere)" if path.is_symlink() else ""
        raise UserError(
            f"{path}: no such checkpoint{dangling}; name another one, or use --resume latest "
            "for the newest good one in checkpointing.checkpoint_dir"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name another checkpoint"
        ) from error
    return LoadedCheckpoint(tree, manifest, real, [])


def read_step(folder: Path, step: int) -> LoadedCheckpoint:
    """Read the checkpoint of a PPO step.

    Raises:
        UserError: the folder has none of that step, or it cannot be used.
    """
    names = {name.step: name for name in present(file_names(folder))}
    if step not in names:
        steps = ", ".join(map(str, names)) or "none at all"
        raise UserError(f"{folder}: no checkpoint of PPO step {step}; there are: {steps}")
    return read_named(folder / names[step].file)


def read_latest(folder: Path) -> LoadedCheckpoint:
    """Return the newest good checkpoint of a folder.

    Raises:
        UserError: there is none; the text names the bad ones.
    """
    newest, skipped = read_newest(folder)
    if newest is not None:
        return newest
    if not skipped:
        raise UserError(
            f"{folder}: there is no checkpoint to resume from. Name one by its path, check "
            "checkpointing.checkpoint_dir, or start afresh with --resume never"
        )
    bad = "\n".join(f"  {path.name}: {reason}" for path, reason in skipped)
    raise UserError(
        f"{folder}: no checkpoint there can be used; restore one, name one by its path, or start "
        f"afresh with --resume never\n{bad}"
    )


def read_newest(folder: Path) -> tuple[LoadedCheckpoint | None, Skipped]:
    """Return the newest good checkpoint of a folder, if any, and the bad ones that are newer."""
    while True:
        try:
            return _read_newest(folder)
        except FileNotFoundError:
            continue  # pruned between listing and reading: newer ones are there now


def _read_newest(folder: Path) -> tuple[LoadedCheckpoint | None, Skipped]:
    skipped: Skipped = []
    for name in reversed(present(file_names(folder))):
        path = folder / name.file
        try:
            tree, manifest = _read(path)
        except UnusableCheckpoint as bad:
            skipped.append((path, bad.reason))
            continue
        return LoadedCheckpoint(tree, manifest, path, skipped), skipped
    return None, skipped


def _read(path: Path) -> tuple[StateDict, Manifest]:
    """Read a checkpoint and verify it.

    The bytes that were verified are the bytes that are parsed: the file is read once.

    Raises:
        FileNotFoundError: it is not there, or not any more.
        UnusableCheckpoint: it is bad.
    """
    while True:
        description = _manifest_content(path)
        try:
            return _parse(path, description)
        except UnusableCheckpoint:
            path.stat()  # gone means pruned while we read, not bad
            if _manifest_content(path) == description:
                raise
            # The step was published again while we read: what we saw were two halves.


def _parse(path: Path, description: bytes | None) -> tuple[StateDict, Manifest]:
    if description is None:
        raise UnusableCheckpoint(
            path,
            f"incomplete: {manifest_path(path).name} is not beside it. A checkpoint is the pair "
            "of both files; copy both",
        )
    manifest = parse_manifest(description, path)
    name = parse(path.name)
    if name is not None and name.step != manifest.ppo_step:
        raise UnusableCheckpoint(
            path, f"renamed: its manifest says PPO step {manifest.ppo_step}. Rename both files back"
        )
    data = _content(path)
    if (misfit := manifest.misfit(data)) is not None:
        raise UnusableCheckpoint(path, misfit)
    from ppo_scheduler.checkpoint.tree import load  # torch: lists of checkpoints do without

    return _complete_tree(load(data, path), manifest, path), manifest


def _complete_tree(tree: StateDict, manifest: Manifest, path: Path) -> StateDict:
    """Return the tree in the present layout, with every part its manifest names."""
    try:
        tree = migrate_tree(tree, manifest.schema_version)
    except (LookupError, TypeError, ValueError) as error:
        raise UnusableCheckpoint(
            path, f"incomplete for schema_version {manifest.schema_version}: lacks {error}"
        ) from error
    missing = sorted(set(manifest.parts) - set(tree))
    if missing:
        raise UnusableCheckpoint(path, f"incomplete: lacks the part {', '.join(missing)}")
    return tree


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableCheckpoint(path, f"cannot be read ({error.strerror})") from error


def _manifest_content(path: Path) -> bytes | None:
    try:
        return _content(manifest_path(path))
    except FileNotFoundError:
        return None


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
