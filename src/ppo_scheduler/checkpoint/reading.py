"""Reading and verifying checkpoints, also while a training publishes and prunes beside us."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.checkpoint.disk import file_names
from ppo_scheduler.checkpoint.manifest import Manifest, manifest_path, parse_manifest
from ppo_scheduler.checkpoint.migrations import migrate_tree
from ppo_scheduler.checkpoint.names import parse, present
from ppo_scheduler.checkpoint.tree import load
from ppo_scheduler.checkpoint.unusable import UnusableCheckpoint
from ppo_scheduler.errors import UserError
from ppo_scheduler.state import StateDict

Skipped = list[tuple[Path, str]]


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
