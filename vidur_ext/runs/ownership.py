"""A run is one thing with one owner: its folders are locked before anything in them is changed, and
until all is done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from ppo_scheduler.checkpoint.reading import CheckpointInfo
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, move, write_file
from vidur_ext.config.loading import dump_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import EXTERNAL_RUNS, WARMSTART_RUNS, Owner, RunFolder
from vidur_ext.runs.start import Start


@dataclass(frozen=True)
class OwnedRun:
    """A run that this process owns."""

    folder: RunFolder
    owner: Owner


def check_free(config: TrainingConfig, patience_s: float = 0.0) -> None:
    """Return when no training writes to the config's checkpoint folder.

    Raises:
        UserError: one still does after ``patience_s``.
    """
    if config.checkpointing.enable_checkpoints:
        CheckpointStore(config.checkpointing).wait_for_writer(patience_s)


@contextmanager
def owned_run(start: Start, patience_s: float = 0.0) -> Iterator[OwnedRun]:
    """Own a run's folder, which may be a new one, and its checkpoint folder inside the block.

    Args:
        patience_s: for a chunk whose driver died, and which is saving.

    Raises:
        UserError: somebody else does, or a folder cannot be used. Then nothing is new there.
    """
    if start.run_dir is None or not start.run_dir.exists():
        check_free(start.config, patience_s)
    with ExitStack() as stack:
        with _unmade_if_refused(start) as folder:
            stack.enter_context(folder.lock())  # at once: only a process that died is waited for
            check_free(start.config, patience_s)
            store = _own_checkpoints(start, stack)
        yield OwnedRun(folder, Owner(None if store is None else store.lock_handle))


@contextmanager
def _unmade_if_refused(start: Start) -> Iterator[RunFolder]:
    """Give the run's folder; one that was made for this goes again if the block fails."""
    root, kind = Path(start.config.training.output_root), _kind_of(start)
    place = start.run_dir or root / kind
    made = [path for path in (place, *place.parents) if not os.path.lexists(path)]
    folder = None
    try:
        if start.run_dir is not None:
            folder = RunFolder.at(start.run_dir)
        else:
            folder = RunFolder.create(root, kind, datetime.now())
        yield folder
    except BaseException:
        if folder is not None and (start.run_dir is None or start.run_dir in made):
            shutil.rmtree(folder.path, ignore_errors=True)  # made a moment ago, and empty
        for path in made:
            with suppress(OSError):  # somebody else uses it by now
                path.rmdir()
        raise


def _kind_of(start: Start) -> str:
    return WARMSTART_RUNS if start.external is None else EXTERNAL_RUNS


def _own_checkpoints(start: Start, stack: ExitStack) -> CheckpointStore | None:
    section = start.config.checkpointing
    if not section.enable_checkpoints:
        return None
    store = CheckpointStore(section)
    store.prepare()
    stack.callback(store.close)
    if start.origin is not None and start.load_checkpoint == "latest":
        _check_newest(start.origin, store.latest())
    return store


def _check_newest(chosen: CheckpointInfo, newest: CheckpointInfo | None) -> None:
    """Between the answer and the lock another training may have begun and ended."""
    if newest is None or newest.manifest.sha256 != chosen.manifest.sha256:
        now = "is gone" if newest is None else f"is not the newest any more: {newest.path} is"
        raise UserError(f"{chosen.path}: was to be continued, but {now}. Start again")


def open_folder(start: Start, folder: RunFolder) -> None:
    """Keep in an owned folder what the training begins or goes on with.

    A comparison of what was trained until now is of another policy than the one to come: it stays,
    under another name.

    Raises:
        UserError: the disk refuses.
    """
    folder.identify()
    with disk_errors(folder.path, "the run cannot write there", "Choose another --output-dir"):
        write_file(folder.config, dump_config(start.config).encode())
        if start.file is not None:
            write_file(folder.config_file, dump_config(start.file).encode())
        if folder.comparison.exists():
            move(folder.comparison, _earlier_name(folder))


def _earlier_name(folder: RunFolder) -> Path:
    record = folder.record
    trained = "earlier" if record is None or record.policy_of is None else record.policy_of
    stem = f"{folder.comparison.name}_of_{trained}"
    names = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
    return next(path for name in names if not (path := folder.path / name).exists())


def leave_chunks(folder: RunFolder) -> None:
    """A training that goes on in one go is none in chunks any more: their plan is put away.

    Raises:
        UserError: the disk refuses.
    """
    if folder.progress.exists():
        way_out = "Move it away yourself"
        with disk_errors(folder.progress, "the plan of chunks cannot be put away", way_out):
            move(folder.progress, folder.progress.with_suffix(".earlier.json"))
