"""Files that are either whole or not there, and locks that end with their holder.

The only place that knows ``fsync`` and ``flock``.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from typing_extensions import Self

from ppo_scheduler.errors import UserError

_POLL_S = 0.1
_PROCESS = re.compile(rb"(\d{1,31}\n)?")
"""What a lock holds."""


@contextmanager
def disk_errors(place: Path, what: str, way_out: str) -> Iterator[None]:
    """Turn what the operating system refuses into a ``UserError``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: {what} ({error.strerror or error}). {way_out}") from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file durably; whatever had the name is replaced.

    A reader sees the old file or the new one, never a part. A refused write leaves the old one and
    nothing else; a killed one may leave a file under the staged name.

    Raises:
        OSError: the disk refuses; it names the file.
    """
    try:
        write_staged(path, content)
        reveal(path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(path)
        with suppress(OSError):  # what went wrong first is what matters
            staged_path(path).unlink()
        raise


def appending(path: Path) -> io.FileIO:
    """Open a file unbuffered, to add to it; it is made if there is none. A link is refused.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    return io.FileIO(os.open(path, flags, 0o666), "a")


def refuse_links_out(folder: Path) -> None:
    """Check that nothing in a folder that is written to leads to somewhere else.

    Raises:
        UserError: a link does.
        OSError: the folder cannot be read.
    """
    inside = os.path.realpath(folder) + os.sep
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and not os.path.realpath(entry).startswith(inside):
                raise UserError(
                    f"{entry.path}: is a link that leads out of the folder, and nothing is written "
                    "through it. Move it away, or put what it leads to in its place"
                )


def check_place(path: Path) -> None:
    """Check that a file, and the folders it needs, can be made at ``path``; nothing is made.

    For what is written at the end of hours.

    Raises:
        OSError: it cannot, as far as that can be seen; it names what stands in the way.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = next(place for place in path.parents if os.path.lexists(place))
    os.stat(os.path.join(folder, os.curdir))  # a link may lead nowhere, or to a file
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


class GrowingFile:
    """A file of one writer that grows by whole pieces, however often the disk refuses."""

    def __init__(self, path: Path, head: bytes = b"") -> None:
        """Go on behind what the file holds; it is made if there is none.

        Args:
            head: what an empty file begins with.

        Raises:
            OSError: the file cannot be written.
        """
        self._path = path
        self._head = head
        self._find()

    def _find(self) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with os.fdopen(handle) as stream:
            found = os.fstat(stream.fileno())
        self._id, self._size = (found.st_dev, found.st_ino), found.st_size

    def append(self, piece: bytes) -> None:
        """Add a piece; after the call a killed process does not lose it any more.

        A file that was removed or moved away is made anew: what is added from now on is not lost.

        Raises:
            OSError: the piece is not in the file; the next one takes the place of what is of it.
        """
        if not os.path.lexists(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._find()
        if self._size == 0:
            piece = self._head + piece
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_NOFOLLOW), "r+b") as stream:
            found = os.fstat(stream.fileno())
            if (found.st_dev, found.st_ino) != self._id:
                raise OSError(errno.EEXIST, "another file is in its place by now", str(self._path))
            stream.truncate(self._size)
            stream.seek(self._size)
            stream.write(piece)
        self._size += len(piece)


def staged_path(path: Path) -> Path:
    """Return where a file is until it is whole: beside its place, under a name with a dot."""
    return path.with_name(f".{path.name}.tmp")


def write_staged(path: Path, content: bytes) -> None:
    """Write ``content`` durably under the staged name of ``path``.

    What has that name is of a process that was killed, or a link, which is not followed.
    """
    staged = staged_path(path)
    if os.path.lexists(staged):
        staged.unlink()
    with open(staged, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def reveal(path: Path) -> None:
    """Give a staged file its name, durably; whatever had the name is replaced."""
    move(staged_path(path), path)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder within a file system, durably; what had the name is replaced."""
    os.replace(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FileLock:
    """Holds a file until it is released or the process ends, however it ends.

    The file names its holder's process. It stays: deleting it could let two holders in. Children
    that are given ``handle`` hold it too, until the last of them ends.
    """

    def __init__(self, path: Path, doing: str) -> None:
        """Take the lock.

        Args:
            doing: what its holder does in the folder, and the way out, for the error.

        Raises:
            UserError: somebody holds it, the text names the process; or it is another's file.
            OSError: the file cannot be opened or locked.
        """
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        self._become(path, handle)
        try:
            if not _locked(handle):
                raise _held(path, handle, doing)
            _check_content(path, handle)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(handle)
            raise

    @classmethod
    def lent(cls, path: Path, handle: int) -> Self:
        """Hold a lock together with the process, or the part of this one, that took it.

        Args:
            handle: that of the lock.

        Raises:
            OSError: there is no such handle.
        """
        lock = cls.__new__(cls)
        lock._become(path, os.dup(handle))
        return lock

    def _become(self, path: Path, handle: int) -> None:
        self._path = path
        self.handle = handle
        """For children, to be inherited, and for ``lent``."""

    def stands(self) -> bool:
        """Tell whether the file is still where it was taken: others would take what is there."""
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.handle))

    def release(self) -> None:
        """Let others take it."""
        os.close(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def wait_until_free(
    path: Path, doing: str, patience_s: float, waiting: Callable[[str], None]
) -> None:
    """Return when nobody holds the lock at ``path``; it is not taken.

    Args:
        doing: as for ``FileLock``.
        waiting: is told the holder's process, once, if there is one.

    Raises:
        UserError: somebody still holds it after ``patience_s``, or it may not be opened.
    """
    handle = _existing(path)
    if handle is None:
        return
    try:
        deadline = time.monotonic() + patience_s
        told = False
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise _held(path, handle, doing)
            if not told:
                waiting(_holder(handle))
                told = True
            time.sleep(_POLL_S)
    finally:
        os.close(handle)


def share(stream: IO[Any]) -> None:
    """Hold an open file together with others, until it is closed or the process ends."""
    fcntl.flock(stream, fcntl.LOCK_SH)


def is_held(path: Path) -> bool:
    """Tell whether any process holds a file, shared or not.

    Raises:
        UserError: it may not be opened.
    """
    handle = _existing(path)
    if handle is None:
        return False
    try:
        return not _locked(handle)
    finally:
        os.close(handle)


def _existing(path: Path) -> int | None:
    """Return a handle of a file that may be held, None if there is none: nobody holds that."""
    way_out = "Ask its owner for the right to read it"
    with disk_errors(path, "whether a process holds it cannot be seen", way_out):
        try:
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for ever
        except (FileNotFoundError, NotADirectoryError):
            return None


def _check_content(path: Path, handle: int) -> None:
    """Refuse to overwrite what is no lock: it may be another name of somebody's file."""
    content = os.pread(handle, 33, 0)
    empty_elsewhere = not content and os.fstat(handle).st_nlink > 1
    if empty_elsewhere or not _PROCESS.fullmatch(content):
        raise UserError(
            f"{path}: is in the place of a lock but holds something else, which is left alone; "
            "move it away"
        )


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(path: Path, handle: int, doing: str) -> UserError:
    return UserError(f"{path.parent}: process {_holder(handle)} {doing}")


def _holder(handle: int) -> str:
    return os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "(not yet known)"
