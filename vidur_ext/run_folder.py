"""The folder of one run."""

from __future__ import annotations

import json
import logging
import os
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ppo_scheduler.checkpoint.manifest import Manifest
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import FileLock, disk_errors, refuse_links_out, wait_until_free, write_file
from ppo_scheduler.sealed_json import is_sealed, sealed

_LOG = logging.getLogger("ppo")
WARMSTART_RUNS = "warmstart_training_optimized"
EXTERNAL_RUNS = "warmstart_external"
"""Runs that begin with a model of elsewhere have a folder of their own below the output root."""


RUN_ID = "run_id"
"""Among the facts of a checkpoint."""

_CHECKSUM = "run_sha256"
_LOCK = ".run.lock"
_TRAINING = (
    "is training there. Wait for it or stop it, or begin another training with an --output-dir and "
    "a checkpointing.checkpoint_dir of its own"
)


class RunRecord(BaseModel):
    """Which run a folder is of."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    run_id: str
    """Also in the run's checkpoints and its progress file: names of folders can be copied."""
    policy_of: int | None = None
    """``global_step`` of the training that ``policy.pt`` is what came of; None before its end."""
    trained: dict[str, int] = {}
    """How many requests from the beginning of a trace were trained on, by the trace's digest."""


@dataclass(frozen=True)
class Owner:
    """A process that owns a run: it holds the locks of its folders from beginning to end."""

    lock: int | None
    """Handle of the checkpoint folder's lock; None where nothing is saved."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its log, events, metrics, demonstrations, policies and comparison."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "ppo_training.log"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def config_file(self) -> Path:
        """What the file named by ``--config`` alone said, without the command line."""
        return self.path / "config_file.json"

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def demonstrations(self) -> Path:
        return self.path / "demonstrations.npz"

    @property
    def warm_start(self) -> Path:
        """How the warm start went, step by step; there only if there was one."""
        return self.path / "warm_start.json"

    @property
    def progress(self) -> Path:
        """Of a training in chunks: what is done and what is left."""
        return self.path / "training_progress.json"

    def chunk_log(self, chunk_id: int) -> Path:
        """What the process of a chunk printed, over all its attempts."""
        return self.path / f"chunk_{chunk_id}.log"

    @property
    def pretrained_actor(self) -> Path:
        return self.path / "pretrained_actor.pt"

    @property
    def policy(self) -> Path:
        return self.path / "policy.pt"

    @property
    def validation(self) -> Path:
        """Which policies were validated, with which result, and which one is ``policy.pt``."""
        return self.path / "validation.json"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison"

    @property
    def comparison_json(self) -> Path:
        """The comparison for programs; it is there when the run is judged."""
        return self.comparison / "comparison.json"

    @property
    def simulator(self) -> Path:
        """Vidur insists on writing its config somewhere."""
        return self.path / "simulator"

    @property
    def record(self) -> RunRecord | None:
        """The run's record; None if the folder is of no run, or the record is damaged."""
        try:
            content = self.record_file.read_bytes()
        except OSError:
            return None
        if not is_sealed(content, _CHECKSUM):
            return None
        try:
            document = json.loads(content)
            del document[_CHECKSUM]
            return RunRecord.model_validate(document)
        except (ValueError, KeyError, TypeError):
            return None

    def write_record(self, record: RunRecord) -> None:
        """Replace the run's record.

        Raises:
            UserError: the disk refuses.
        """
        text = record.model_dump_json(indent=2).encode()
        with disk_errors(self.path, "the run cannot write there", "Choose another --output-dir"):
            write_file(self.record_file, sealed(text, _CHECKSUM))

    def record_now(self) -> RunRecord:
        """Return the run's record; a folder without one becomes a new run's."""
        record = self.record
        if record is None:
            record = RunRecord(run_id=uuid.uuid4().hex[:12])
            self.write_record(record)
        return record

    def of_others(self) -> Path | None:
        """Return what a run would replace here that no run has written; None if there is nothing.

        A folder with a log or a record is a run's.
        """
        if self.log.exists() or self.record_file.exists():
            return None
        own = (
            self.config,
            self.config_file,
            self.demonstrations,
            self.warm_start,
            self.pretrained_actor,
            self.policy,
            self.validation,
            self.progress,
            self.metrics,
            self.tensorboard,
            self.comparison,
        )
        return next((path for path in own if os.path.lexists(path)), None)

    def refuse_another_run(self, own: RunRecord) -> None:
        """Check that no other run has taken the place of a folder that was moved away.

        Raises:
            UserError: one has.
        """
        there = self.record
        if there is not None and there.run_id != own.run_id:
            raise UserError(
                f"{self.path}: is the folder of another run by now, {there.run_id}, which is left "
                "alone. Resume from the last checkpoint with another --output-dir"
            )

    def is_below(self, root: Path) -> bool:
        """Tell whether the folder lies below another one, and no link leads out of that."""
        return os.path.realpath(self.path).startswith(os.path.realpath(root) + os.sep)

    def identify(self) -> str:
        """Return the id of the folder's run; a folder without one becomes a new run's."""
        return self.record_now().run_id

    def saved(self, manifest: Manifest) -> bool:
        """Tell whether this folder's run saved a checkpoint."""
        run_id = manifest.facts.get(RUN_ID)
        if run_id is None:  # saved before runs had ids
            return os.path.realpath(manifest.run_dir) == os.path.realpath(self.path)
        record = self.record
        return record is not None and record.run_id == run_id

    def lock(self) -> FileLock:
        """Be the only process that writes to the folder, until the lock is released.

        Raises:
            UserError: another process does, the folder cannot be written, or a link in it leads to
                what is not the run's.
        """
        with disk_errors(self.path, "the run cannot be locked", "Choose another --output-dir"):
            refuse_links_out(self.path)
            return FileLock(self.path / _LOCK, _TRAINING)

    def wait_for_owner(self, patience_s: float) -> None:
        """Return when nobody holds the folder's lock.

        Raises:
            UserError: somebody still does after ``patience_s``; the text names the process.
        """

        def waiting(process: str) -> None:
            _LOG.warning("%s: waiting for process %s to save and end", self.path, process)

        wait_until_free(self.path / _LOCK, _TRAINING, patience_s, waiting)

    @classmethod
    def create(cls, output_root: Path, kind: str, now: datetime) -> RunFolder:
        """Create ``output_root/kind/run_<YYYYmmdd_HHMMSS>``, with a suffix if that is taken."""
        stem = f"run_{now:%Y%m%d_%H%M%S}"
        parent = output_root / kind
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(parent, error) from error
        for attempt in range(1, 1000):
            path = parent / (stem if attempt == 1 else f"{stem}_{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise _unusable(path, error) from error
            return cls(path)
        raise UserError(f"{parent}: cannot find a free name for {stem}")

    @classmethod
    def at(cls, path: Path) -> RunFolder:
        """Use (and create) exactly ``path``.

        Raises:
            UserError: it cannot be used.
        """
        if not str(path).isprintable():
            raise UserError(
                f"run folder {str(path)!a}: checkpoints note it as text, and this name is none; "
                "choose another one"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from error
        return cls(path)


def home_of(manifest: Manifest, output_root: Path) -> RunFolder | None:
    """Return the folder of the run that saved a checkpoint, None if it is not below the root.

    The manifest says where it was then. Its tree may have been copied or moved since, and then it
    belongs to where it lies now; and what a file says is no leave to write outside of the root.
    """
    said = Path(manifest.run_dir)
    for place in (said, output_root / said.parent.name / said.name):
        folder = RunFolder(place)
        if folder.is_below(output_root) and folder.log.exists() and folder.saved(manifest):
            return folder
    return None


def _unusable(path: Path, error: OSError) -> UserError:
    places = (path, *path.parents)
    nowhere = next((place for place in places if place.is_symlink() and not place.exists()), None)
    reason = error.strerror if nowhere is None else f"{nowhere} is a link that leads nowhere"
    return UserError(
        f"{path}: cannot create the output folder ({reason}); choose another place with "
        "--output-dir or training.output_root"
    )
