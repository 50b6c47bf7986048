"""The checkpoint folder as the trainer and the command line see it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from ppo_scheduler.checkpoint.manifest import (
    Description,
    Manifest,
)
from ppo_scheduler.checkpoint.migrations import SCHEMA_VERSION
from ppo_scheduler.checkpoint.names import (
    ARCHIVE,
    LATEST,
    LOCK,
    PROBE,
    CheckpointName,
    Retention,
    is_staged,
    not_past_of,
    parse,
    present,
)
from ppo_scheduler.checkpoint.publish import (
    move_aside,
    outdated,
    point_latest,
    prune,
    prune_archive,
    publish,
)
from ppo_scheduler.checkpoint.reading import (
    CheckpointInfo,
    LoadedCheckpoint,
    archive_folders,
    entries,
    file_names,
    find,
    find_newest,
    load,
)
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import FileLock, disk_errors, wait_until_free, write_file
from ppo_scheduler.state import StateDict

__all__ = ["CheckpointInfo", "CheckpointStore", "LoadedCheckpoint"]

_LOG = logging.getLogger("ppo.checkpoint")
_ELSEWHERE = (
    "Free space or rights there, choose another checkpointing.checkpoint_dir, or switch saving "
    "off with checkpointing.enable_checkpoints=false"
)
_WRITING = (
    "is writing checkpoints there. Wait for it or stop it, or give this training a "
    "checkpointing.checkpoint_dir of its own"
)
_SERIES = 5
"""Checkpoints there must be room for before a training starts, if so many are kept."""


def _dumped(tree: StateDict) -> bytes:
    from ppo_scheduler.state_file import dump  # torch takes a second: finding does without

    return dump(tree)


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class CheckpointStore:
    """Publishes, finds and reads the checkpoints of one folder.

    Reading needs no lock and changes nothing. Writing (``prepare``, ``publish``, ``set_aside``)
    holds the folder's lock until ``close``.
    """

    def __init__(
        self,
        section: CheckpointingSection,
        clock: Callable[[], datetime] = _utc_now,
        *,
        lent_lock: int | None = None,
    ) -> None:
        """Open the folder ``section`` names.

        Args:
            clock: gives the present time in UTC.
            lent_lock: handle of the folder's lock, which the owner of the whole run holds; None
                takes the lock.
        """
        self._folder = Path(section.checkpoint_dir)
        self._retention = Retention.of(section)
        self._clock = clock
        self._lent_lock = lent_lock
        self._lock: FileLock | None = None
        self._origin: CheckpointName | None = None
        self._folder_is_ours = False
        self._told_about_links = False

    def prepare(self) -> None:
        """Create the folder, take its lock and check that files can be written and renamed.

        Once that is done, check that the folder is still the one that was locked. One that was
        removed or moved away is made anew: what is saved from now on is not lost too.

        Raises:
            UserError: another training writes there or did since, or the folder cannot be used.
        """
        if self._lock is not None and self._stands(self._lock):
            return
        with disk_errors(self._folder, "checkpoints cannot be saved there", _ELSEWHERE):
            lock = self._take_lock()
            try:
                self._refuse_archive_elsewhere()
                self._probe()
            except BaseException:
                lock.release()
                raise
            self._lock = lock

    @property
    def lock_handle(self) -> int:
        """Handle of the lock that ``prepare`` took, for those who write on behalf of its owner."""
        assert self._lock is not None, "prepare comes first"
        return self._lock.handle

    def _take_lock(self) -> FileLock:
        if self._lent_lock is not None:
            lent, self._lent_lock = FileLock.lent(self._folder / LOCK, self._lent_lock), None
            if self._stands(lent):
                return lent
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / LOCK, _WRITING)

    def _stands(self, lock: FileLock) -> bool:
        """Return whether the folder is the one that was locked; if it is gone the lock is left.

        Raises:
            UserError: there is another folder in its place.
        """
        if lock.stands():
            return True
        if os.path.lexists(self._folder / LOCK):
            raise UserError(
                f"{self._folder}: was replaced while this training held its lock; nothing is "
                "written to what may be another training's. Stop this one, and start it again from "
                "a checkpoint with a checkpointing.checkpoint_dir of its own"
            )
        _LOG.warning(
            "%s: was removed or moved away while checkpoints are saved there; it is made anew, "
            "and what was in it is not there any more",
            self._folder,
        )
        lock.release()
        self._lock = None
        self._origin, self._folder_is_ours = None, False
        return False

    def _refuse_archive_elsewhere(self) -> None:
        archive = self._folder / ARCHIVE
        if archive.is_symlink():
            raise UserError(
                f"{archive}: is a link, and no checkpoints are moved or deleted through it. Put a "
                "folder in its place, or choose another checkpointing.checkpoint_dir"
            )

    def wait_for_writer(self, patience_s: float) -> None:
        """Return when no process writes to the folder.

        Raises:
            UserError: one still does after ``patience_s``; the text names it.
        """

        def waiting(process: str) -> None:
            _LOG.warning("waiting for process %s to save and end", process)

        wait_until_free(self._folder / LOCK, _WRITING, patience_s, waiting)

    def close(self) -> None:
        """Let other trainings write to the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def publish(self, tree: StateDict, description: Description) -> Path:
        """Save a tree; return the checkpoint's path once it is safe on the disk.

        The first publication moves aside whatever in the folder is not the past of the checkpoint
        that this store loaded, so that rotation never deletes another training's checkpoints.

        What is saved is saved: if ``latest.pt`` or older checkpoints cannot be changed afterwards,
        that is a warning, and the next publication tries again.

        Raises:
            UserError: the disk refuses; earlier checkpoints are untouched.
        """
        self.prepare()
        data = _dumped(tree)
        now = self._clock()
        name = CheckpointName(description.ppo_step)
        manifest = Manifest(
            **dict(description),
            schema_version=SCHEMA_VERSION,
            file=name.file,
            created_at=now.isoformat(timespec="seconds"),
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            parts=list(tree),
        )
        with disk_errors(self._folder, f"{name.file} was not saved", _ELSEWHERE):
            path = publish(self._folder, name, data, manifest, self._leave_others_alone)
        saved = f"{name.file} is saved, but"
        with self._put_off(f"{saved} {LATEST} does not lead to it"):
            if not point_latest(self._folder, name, now):
                self._tell_about_links()
        with self._put_off(f"{saved} older ones were not deleted"):
            prune(self._folder, self._retention)
        return path

    @contextmanager
    def _put_off(self, what: str) -> Iterator[None]:
        """Log what the disk refuses: the next publication does it."""
        try:
            with disk_errors(self._folder, what, "The next save tries again"):
                yield
        except UserError as refused:
            _LOG.warning("%s", refused)

    def outdated(self, retention: Retention) -> list[Path]:
        """Return what ``prune`` would delete, oldest first. Nothing is changed."""
        return [self._folder / name.file for name in outdated(self._folder, retention)]

    def prune(self, retention: Retention) -> list[Path]:
        """Delete what ``retention`` does not keep; return its paths, oldest first.

        Raises:
            UserError: as ``prepare``, or the disk refuses.
        """
        self.prepare()
        with disk_errors(self._folder, "old checkpoints cannot be deleted", _ELSEWHERE):
            names = prune(self._folder, retention)
        return [self._folder / name.file for name in names]

    def prune_archives(self, keep: int) -> None:
        """Delete all archived checkpoints but those of the newest ``keep`` archives.

        Raises:
            UserError: as ``prepare``, or the disk refuses.
        """
        self.prepare()
        for archive in self.old_archives(keep):
            with disk_errors(archive, "archived checkpoints cannot be deleted", _ELSEWHERE):
                prune_archive(archive)

    def old_archives(self, keep: int) -> list[Path]:
        """Return the archive folders but the newest ``keep``, oldest first."""
        found = archive_folders(self._folder)
        old = found[: max(len(found) - keep, 0)]
        return [archive for archive in old if not archive.is_symlink()]  # another's folder

    def check_space(self, tree: StateDict) -> None:
        """Check that the disk has room for checkpoints of this tree's size.

        Raises:
            UserError: it has not: the first save, or an early one, would fail.
        """
        self.prepare()
        needed = len(_dumped(tree)) * (1 + min(self._retention.keep or _SERIES, _SERIES))
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise UserError(
                f"{self._folder}: {free / 1e6:.1f} MB are free, the checkpoints need "
                f"{needed / 1e6:.1f} MB. {_ELSEWHERE}"
            )

    def set_aside(self) -> Path | None:
        """Move all checkpoints and ``latest.pt`` into a new folder below ``archive/``.

        Returns:
            The new folder, or None if there was nothing to move.

        Raises:
            UserError: as ``prepare``, or the disk refuses.
        """
        self.prepare()
        with disk_errors(self._folder, "the earlier checkpoints cannot be moved", _ELSEWHERE):
            names = present(file_names(self._folder))
            aside = move_aside(self._folder, names, self._clock(), with_latest=True)
        self._folder_is_ours = True
        return aside

    def checkpoints(self) -> list[CheckpointInfo]:
        """Return the complete checkpoints, oldest first, by their manifests alone (unverified)."""
        return [
            CheckpointInfo(entry.path, entry.manifest)
            for entry in entries(self._folder)
            if entry.manifest is not None
        ]

    def latest(self) -> CheckpointInfo | None:
        """Return the newest verified checkpoint, None without one. Bad ones are logged."""
        newest, skipped = find_newest(self._folder)
        for path, reason in skipped:
            _LOG.warning("skipped %s: %s", path, reason)
        return newest

    def find(self, source: str | Path | int) -> CheckpointInfo:
        """Verify a checkpoint without parsing it; arguments and errors as ``load``."""
        return find(self._folder, source)

    def load(
        self,
        source: str | Path | int,
        check: Callable[[LoadedCheckpoint], None] = lambda loaded: None,
    ) -> LoadedCheckpoint:
        """Read and verify a checkpoint, which is not modified; publications continue it.

        Args:
            source: a path (links are followed), ``latest`` for the newest good one, or a PPO step.
            check: raises ``UnusableCheckpoint`` for a content that cannot be gone on with.

        Raises:
            UserError: the named one is bad, or there is no good one.
        """
        loaded = load(self._folder, source, check)
        inside = loaded.path.resolve().parent == self._folder.resolve()
        self._origin = parse(loaded.path.name) if inside else None
        self._folder_is_ours = False
        return loaded

    def _probe(self) -> None:
        """Write as a publication does; clear what an interrupted one left."""
        for file in file_names(self._folder):
            if is_staged(file):
                (self._folder / file).unlink()
        probe = self._folder / PROBE
        write_file(probe, b"can this folder be written?\n")
        probe.unlink()

    def _leave_others_alone(self) -> None:
        self.prepare()  # staging took its time
        if not self._folder_is_ours:
            others = not_past_of(self._origin, present(file_names(self._folder)))
            aside = move_aside(self._folder, others, self._clock(), with_latest=False)
            if aside is not None:
                _LOG.info("moved checkpoints that this training does not continue to %s", aside)
            self._folder_is_ours = True

    def _tell_about_links(self) -> None:
        if not self._told_about_links:
            _LOG.warning(
                "%s: no latest.pt, the file system knows no symlinks; --resume latest works",
                self._folder,
            )
            self._told_about_links = True
