"""Demonstration sets on the disk: written whole or not at all, found, and deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from ppo_scheduler.checkpoint.disk import disk_errors, reveal, sync_folder, write_staged
from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError
from vidur_ext.env.schema import observation_schema
from vidur_ext.versions import package_versions
from vidur_ext.warmstart.demonstration_set import (
    DATA_FILE,
    DESCRIPTION_FILE,
    DemonstrationSet,
    SetDescription,
    open_set,
    recorded_keys,
)
from vidur_ext.warmstart.demonstrations import Demonstrations

SETS = "demonstrations"
"""Folder of the sets below the output root."""


@dataclass(frozen=True)
class FoundSet:
    """A folder that holds a set, or a description that cannot be read."""

    path: Path
    found: DemonstrationSet | None
    problem: str | None
    """Why it cannot be used, as far as can be told without reading the data."""


def new_set_path(output_root: Path, now: datetime) -> Path:
    """Return a free ``output_root/demonstrations/set_<YYYYmmdd_HHMMSS>``."""
    stem = f"set_{now:%Y%m%d_%H%M%S}"
    path, attempt = output_root / SETS / stem, 1
    while os.path.lexists(path):
        attempt += 1
        path = path.with_name(f"{stem}_{attempt}")
    return path


@contextmanager
def staged_set(target: Path) -> Iterator[Path]:
    """Give a hidden folder that becomes ``target`` if the block ends well, and is gone otherwise.

    It is made before the block runs, so that nobody waits for what cannot be written.

    Raises:
        UserError: ``target`` is in use, or cannot be written.
    """
    # Only an absolute path has a name for certain ("." has none).
    target = Path(os.path.abspath(target))
    staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    refused = "the demonstrations cannot be written there", "Choose another --output-dir"
    with disk_errors(target, *refused):
        if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
            raise UserError(
                f"{target}: exists and is no empty folder. Choose another --output-dir, leave it "
                "out for a new folder, or delete an old set with vidur-ppo demos clean"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    try:
        yield staging
        with disk_errors(target, *refused):
            sync_folder(staging)
            os.rename(staging, target)
            sync_folder(target.parent)
    finally:
        if staging.exists():
            shutil.rmtree(staging)


def write_set(
    folder: Path,
    demonstrations: Demonstrations,
    config: TrainingConfig,
    workload: str,
    now: datetime,
) -> SetDescription:
    """Write data and description into an empty folder.

    Args:
        workload: the workload of the config in words.
        now: with its UTC offset.
    """
    with disk_errors(folder, "the demonstrations were not written", "Free space or rights there"):
        demonstrations.save(folder / DATA_FILE)
        data = (folder / DATA_FILE).read_bytes()
        description = SetDescription(
            created_at=now.isoformat(timespec="seconds"),
            teachers=demonstrations.teachers,
            load_levels=tuple(dict.fromkeys(demonstrations.load_level.tolist())),
            decisions=len(demonstrations),
            num_replicas=demonstrations.replicas.shape[1],
            seed=config.training.seed,
            workload=workload,
            engine=config.simulation.engine,
            observation=recorded_keys(config.observation),
            schema_digest=observation_schema(config.observation).digest(),
            versions=package_versions(),
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        write_staged(folder / DESCRIPTION_FILE, description.to_json())
        reveal(folder / DESCRIPTION_FILE)
    return description


def find_sets(place: Path) -> list[FoundSet]:
    """Return the set in a folder, or all below it, oldest first; what has no description last.

    Links and hidden folders are not followed.

    Raises:
        UserError: there is no such folder, or a folder below it cannot be read.
    """
    if not place.is_dir():
        raise UserError(f"{place}: there is no such folder; name one that holds demonstration sets")
    sets = []
    for folder, below, files in os.walk(place, onerror=_unreadable):
        if DESCRIPTION_FILE in files:
            sets.append(_look(Path(folder)))
        below[:] = [name for name in below if not name.startswith(".")]
    return sorted(sets, key=_age_order)


def delete_set(one: DemonstrationSet) -> bool:
    """Delete the two files of a set and its folder; return whether the folder is gone.

    It stays, with whatever else is in it. The description goes last: interrupted, there is still a
    set to delete.

    Raises:
        UserError: the disk refuses.
    """
    with disk_errors(one.path, "the set was not deleted", "Check the rights of the folder"):
        one.data.unlink(missing_ok=True)
        (one.path / DESCRIPTION_FILE).unlink()
        alone = not any(one.path.iterdir())
        if alone:
            one.path.rmdir()
    return alone


def _look(folder: Path) -> FoundSet:
    try:
        found = open_set(folder)
    except UserError as error:
        return FoundSet(folder, None, str(error))
    return FoundSet(folder, found, found.problem())


def _age_order(one: FoundSet) -> tuple[bool, datetime, str]:
    if one.found is None:
        return True, datetime.min, str(one.path)
    return False, datetime.fromisoformat(one.found.description.created_at), str(one.path)


def _unreadable(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: cannot be searched for demonstration sets ({error.strerror}); name "
        "another folder"
    ) from error
