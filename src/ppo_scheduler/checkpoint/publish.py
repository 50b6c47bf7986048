"""Atomic publication: at every moment there is a whole checkpoint, and only whole ones show.

The order, and what an interruption leaves:

1. checkpoint and manifest are written under dot-names and synced    -> files that readers ignore
2. an earlier file of the same step is renamed to ``.superseded.pt`` -> it is found instead
3. the manifest gets its name, the folder is synced                  -> a manifest alone: ignored
4. the checkpoint gets its name, the folder is synced                -> published
5. ``latest.pt`` is repointed                                        -> it names the one before
6. older checkpoints are pruned, the checkpoint before its manifest  -> a manifest alone: ignored

So a ``.pt`` without a manifest is never complete, and whoever sees a ``.pt`` that was published
sees the manifest that belongs to it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from ppo_scheduler.checkpoint.manifest import (
    Manifest,
    UnusableCheckpoint,
    manifest_path,
    parse_manifest,
)
from ppo_scheduler.checkpoint.names import (
    ARCHIVE,
    LATEST,
    CheckpointName,
    Retention,
    complete,
    orphaned_manifests,
    present,
)
from ppo_scheduler.checkpoint.reading import file_names
from ppo_scheduler.files import move, reveal, staged_path, sync_folder, write_file, write_staged

_NO_SYMLINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def move_aside(
    folder: Path, names: Sequence[CheckpointName], now: datetime, *, with_latest: bool
) -> Path | None:
    """Move checkpoints into a new ``archive/<UTC timestamp>[_n]/`` of the folder.

    The oldest goes first: interrupted at any point, the newest of either place is a whole
    checkpoint, and the next call moves the rest.

    Args:
        with_latest: move ``latest.pt`` along; it is relative and still leads to its checkpoint.

    Returns:
        The new folder, or None if there was nothing to move.
    """
    files = [name.file for name in sorted(names)]
    if with_latest and os.path.lexists(folder / LATEST):
        files.append(LATEST)
    if not files:
        return None
    aside = _new_folder(folder / ARCHIVE, now)
    for file in files:
        _move_pair(folder / file, aside / file)
    return aside


def _move_pair(source: Path, target: Path) -> None:
    """Move a checkpoint and its manifest so that one of the two places is always complete.

    The manifest is copied first, then the rename of the checkpoint moves the pair in one step.
    """
    manifest = manifest_path(source)
    if manifest.exists():
        write_file(manifest_path(target), manifest.read_bytes())
    move(source, target)
    manifest.unlink(missing_ok=True)


def _new_folder(archive: Path, now: datetime) -> Path:
    archive.mkdir(exist_ok=True)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    for number in count(1):
        folder = archive / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        sync_folder(archive)
        sync_folder(archive.parent)
        return folder
    raise AssertionError("unreachable")


def publish(
    folder: Path,
    name: CheckpointName,
    data: bytes,
    manifest: Manifest,
    before_it_shows: Callable[[], None],
) -> Path:
    """Do steps 1 to 4; ``before_it_shows`` runs between staging and the first rename."""
    path, manifest_file = folder / name.file, folder / name.manifest
    try:
        write_staged(path, data)
        write_staged(manifest_file, manifest.to_json())
        before_it_shows()
        if path.exists():
            _move_pair(path, folder / name.superseded.file)
        reveal(manifest_file)
        reveal(path)
    except BaseException:
        for file in (path, manifest_file):
            with suppress(OSError):  # what went wrong first is what matters
                staged_path(file).unlink()
        raise
    return path


def point_latest(folder: Path, name: CheckpointName, now: datetime) -> bool:
    """Do step 5; False where the file system knows no symlinks.

    A ``latest.pt`` that is not a link was put there by someone: it is moved aside, not replaced.
    """
    latest = folder / LATEST
    if latest.exists() and not latest.is_symlink():
        move_aside(folder, [], now, with_latest=True)
    return _point(latest, name.file)


def _point(link: Path, target: str) -> bool:
    """Make ``link`` a symlink to ``target`` by an atomic rename; False where links are unknown."""
    temporary = staged_path(link)
    temporary.unlink(missing_ok=True)
    try:
        os.symlink(target, temporary)
    except NotImplementedError:
        return False
    except OSError as error:
        if error.errno in _NO_SYMLINKS:
            return False
        raise
    reveal(link)
    return True


def prune(folder: Path, retention: Retention) -> list[CheckpointName]:
    """Do step 6: delete what ``retention`` does not keep; return it, oldest first.

    Raises:
        OSError: a file cannot be deleted; all others are.
    """
    gone = outdated(folder, retention)
    refused = [_delete(folder / name.file) for name in gone]
    refused += [_delete(folder / manifest) for manifest in orphaned_manifests(file_names(folder))]
    for error in refused:
        if error is not None:
            raise error
    return gone


def prune_archive(folder: Path) -> None:
    """Delete the checkpoints of an archive folder, and the folder unless more is in it.

    Raises:
        OSError: a file cannot be deleted; all others are.
    """
    refused = [_delete(folder / name.file) for name in present(file_names(folder))]
    refused += [_delete(folder / manifest) for manifest in orphaned_manifests(file_names(folder))]
    if (folder / LATEST).is_symlink():
        refused.append(_delete(folder / LATEST))
    for error in refused:
        if error is not None:
            raise error
    if not any(folder.iterdir()):
        folder.rmdir()


def _delete(file: Path) -> OSError | None:
    """Delete a file if it is there; return why that is impossible."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        return error
    return None


def outdated(folder: Path, retention: Retention) -> list[CheckpointName]:
    """Return what ``prune`` would delete, oldest first."""
    return retention.outdated(_scores(folder, retention))


def _scores(folder: Path, retention: Retention) -> dict[CheckpointName, float | None]:
    """Return the score of every complete checkpoint; one that cannot be read has none."""
    scores: dict[CheckpointName, float | None] = dict.fromkeys(complete(file_names(folder)))
    for name in scores if retention.needs_scores else ():
        with suppress(FileNotFoundError, UnusableCheckpoint):
            content = (folder / name.manifest).read_bytes()
            scores[name] = parse_manifest(content, folder / name.file).val_score
    return scores
