"""Finding, verifying and reading checkpoints, also while a training publishes and prunes beside us;
and what is in a folder by names and manifests alone.

Finding verifies: manifest, size and SHA-256. Loading reads and verifies again, because the bytes
that were verified are the ones to parse, and parses: that alone needs torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ppo_scheduler.checkpoint.manifest import (
    Manifest,
    UnusableCheckpoint,
    manifest_path,
    parse_manifest,
)
from ppo_scheduler.checkpoint.migrations import migrate_tree
from ppo_scheduler.checkpoint.names import ARCHIVE, parse, present
from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.files import disk_errors
from ppo_scheduler.state import StateDict

Skipped = list[tuple[Path, str]]
"""Bad checkpoints, with the reason of each."""


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint: where it is and what its manifest says."""

    path: Path
    manifest: Manifest
    skipped: Skipped = field(default_factory=list)
    """Newer ones that were passed over, if the newest good one was asked for."""


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint(CheckpointInfo):
    """A checkpoint with its content."""

    tree: StateDict


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


def find(folder: Path, source: str | Path | int) -> CheckpointInfo:
    """Return a verified checkpoint; its content is not parsed.

    Args:
        source: a path (links are followed), ``latest`` for the newest good one of the folder, or a
            PPO step of it.

    Raises:
        UserError: the named one is bad, or there is no good one.
    """
    return _of_source(folder, source, _verified)


def load(
    folder: Path,
    source: str | Path | int,
    check: Callable[[LoadedCheckpoint], None] = lambda loaded: None,
) -> LoadedCheckpoint:
    """Read, verify and parse a checkpoint; arguments and errors as ``find``.

    Args:
        check: raises ``UnusableCheckpoint`` for a content that cannot be gone on with.
    """

    def checked(path: Path, manifest: Manifest, content: bytes) -> LoadedCheckpoint:
        loaded = _loaded(path, manifest, content)
        check(loaded)
        return loaded

    return _of_source(folder, source, checked)


def load_named(path: Path) -> LoadedCheckpoint:
    """Read, verify and parse the checkpoint a user named; links are followed.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    return _named(path, _loaded)


def find_newest(folder: Path) -> tuple[CheckpointInfo | None, Skipped]:
    """Return the newest good checkpoint of a folder, if any, and the bad ones that are newer."""
    return _newest(folder, _verified)


def step_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a PPO step is.

    Raises:
        UserError: the folder has none of that step.
    """
    names = {name.step: name for name in present(file_names(folder))}
    if step not in names:
        steps = ", ".join(map(str, names)) or "none at all"
        raise UserError(f"{folder}: no checkpoint of PPO step {step}; there are: {steps}")
    return folder / names[step].file


_Found = TypeVar("_Found", bound=CheckpointInfo)
_Reader = Callable[[Path, Manifest, bytes], _Found]
"""Makes what is wanted of a path and its verified manifest and content."""


def _verified(path: Path, manifest: Manifest, content: bytes) -> CheckpointInfo:
    return CheckpointInfo(path, manifest)


def _loaded(path: Path, manifest: Manifest, content: bytes) -> LoadedCheckpoint:
    from ppo_scheduler import state_file  # torch takes a second: finding does without

    try:
        tree = state_file.load(content)
    except state_file.NotAState as error:
        raise UnusableCheckpoint(path, str(error)) from error
    return LoadedCheckpoint(path, manifest, tree=_complete_tree(tree, manifest, path))


def _of_source(folder: Path, source: str | Path | int, read: _Reader[_Found]) -> _Found:
    if isinstance(source, int):
        return _named(step_path(folder, source), read)
    return _latest(folder, read) if str(source) == "latest" else _named(Path(source), read)


def _named(path: Path, read: _Reader[_Found]) -> _Found:
    try:
        real = Path(os.path.realpath(path, strict=True))
        if real.is_dir():
            raise UserError(f"{path}: is a folder; name a checkpoint_step_*.pt file in it")
        return _read(real, read)
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


def _latest(folder: Path, read: _Reader[_Found]) -> _Found:
    newest, skipped = _newest(folder, read)
    if newest is not None:
        return replace(newest, skipped=skipped)
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


def _newest(folder: Path, read: _Reader[_Found]) -> tuple[_Found | None, Skipped]:
    while True:
        try:
            return _newest_now(folder, read)
        except FileNotFoundError:
            continue  # pruned between listing and reading: newer ones are there now


def _newest_now(folder: Path, read: _Reader[_Found]) -> tuple[_Found | None, Skipped]:
    skipped: Skipped = []
    for name in reversed(present(file_names(folder))):
        path = folder / name.file
        try:
            return _read(path, read), skipped
        except UnusableCheckpoint as bad:
            skipped.append((path, bad.reason))
    return None, skipped


def _read(path: Path, read: _Reader[_Found]) -> _Found:
    """Read a checkpoint once and verify it.

    Raises:
        FileNotFoundError: it is not there, or not any more.
        UnusableCheckpoint: it is bad.
    """
    while True:
        description = _manifest_content(path)
        try:
            return read(path, *_verify(path, description))
        except UnusableCheckpoint:
            path.stat()  # gone means pruned while we read, not bad
            if _manifest_content(path) == description:
                raise
            # The step was published again while we read: what we saw were two halves.


def _verify(path: Path, description: bytes | None) -> tuple[Manifest, bytes]:
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
    content = _content(path)
    if (misfit := manifest.misfit(content)) is not None:
        raise UnusableCheckpoint(path, misfit)
    return manifest, content


def _complete_tree(tree: StateDict, manifest: Manifest, path: Path) -> StateDict:
    """Return the tree in the present layout, with every part its manifest names."""
    try:
        tree = migrate_tree(tree, manifest.schema_version)
    except IncompatibleState as error:
        raise UnusableCheckpoint(path, str(error)) from error
    except Exception as error:  # a stranger's tree may lack or be anything
        raise UnusableCheckpoint(
            path,
            f"incomplete for schema_version {manifest.schema_version}: lacks or has something else "
            f"in the place of {error}",
        ) from error
    missing = sorted(set(manifest.parts) - set(tree))
    if missing:
        raise UnusableCheckpoint(path, f"incomplete: lacks the part {', '.join(missing)}")
    return tree


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # a pipe would let us wait for ever
        raise UnusableCheckpoint(path, "cannot be read (it is no regular file)")
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
    archived = archive_folders(folder) if archives else []
    return [*(e for below in archived for e in entries(below, below.name)), *entries(folder)]


def newest(listed: Sequence[Entry]) -> Entry | None:
    """Return the newest that a training may continue, as far as manifests tell."""
    live = [entry for entry in listed if entry.archive is None and entry.manifest is not None]
    return live[-1] if live else None


def recorded_keep_every(listed: Sequence[Entry]) -> int | None:
    """Return ``checkpointing.keep_every`` of the training that wrote the newest."""
    last = newest(listed)
    recorded = last and last.manifest and last.manifest.settings.get("checkpointing.keep_every")
    return recorded if isinstance(recorded, int) else None


def archive_folders(folder: Path) -> list[Path]:
    """Return the folders below ``archive/``, oldest first.

    Raises:
        UserError: they cannot be listed.
    """
    with disk_errors(folder, "the archive cannot be listed", "Check its rights"):
        try:
            return sorted(path for path in (folder / ARCHIVE).iterdir() if path.is_dir())
        except FileNotFoundError:
            return []


def entries(folder: Path, archive: str | None = None) -> list[Entry]:
    """Return the checkpoints of one folder, oldest first; none if there is no folder.

    Args:
        archive: name of the archive folder it is.

    Raises:
        UserError: the folder cannot be read.
    """
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
        return parse_manifest(_content(beside), path)
    except OSError as error:
        raise UnusableCheckpoint(path, f"{beside.name} beside it: {error.strerror}") from error
