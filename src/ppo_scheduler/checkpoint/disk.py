"""The few disk operations a checkpoint needs: durable writes, atomic renames, moves of pairs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppo_scheduler.checkpoint.manifest import manifest_path
from ppo_scheduler.checkpoint.names import staged
from ppo_scheduler.errors import UserError

_NO_SYMLINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def disk_errors(folder: Path, what: str, way_out: str) -> Iterator[None]:
    """Turn what the operating system refuses into a ``UserError``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: {what} ({error.strerror or error}). {way_out}") from error


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


def staged_path(path: Path) -> Path:
    """Return where a file is until it is whole."""
    return path.with_name(staged(path.name))


def write_staged(path: Path, content: bytes) -> None:
    """Write ``content`` durably under the staged name of ``path``."""
    with open(staged_path(path), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def reveal(path: Path) -> None:
    """Give a staged file its name, durably; whatever had the name is replaced."""
    os.replace(staged_path(path), path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move_checkpoint(source: Path, target: Path) -> None:
    """Move a checkpoint and its manifest so that one of the two places is always complete.

    The manifest is copied first, then the rename of the checkpoint moves the pair in one step.
    """
    manifest = manifest_path(source)
    if manifest.exists():
        write_staged(manifest_path(target), manifest.read_bytes())
        reveal(manifest_path(target))
    os.replace(source, target)
    sync_folder(target.parent)
    sync_folder(source.parent)
    manifest.unlink(missing_ok=True)


def point(link: Path, target: str) -> bool:
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
