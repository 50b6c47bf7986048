"""How a training is going, told from what it leaves on the disk, whether it runs or not."""

from __future__ import annotations

import csv
import os
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from ppo_scheduler.checkpoint.manifest import Manifest
from ppo_scheduler.checkpoint.reading import catalog
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import is_held
from vidur_ext.config.loading import load_config
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.chunk_record import PROGRESS_FILE, TrainingProgress, read_progress

State = Literal["running", "comparing", "finished", "stopped", "failed", "killed"]
_RECENT_UPDATES = 5
_LINE_BYTES = 1 << 16
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ [A-Z]+ (.+)")


@dataclass(frozen=True)
class CheckpointStatus:
    """The newest checkpoint of a run."""

    path: Path
    manifest: Manifest
    age_s: float


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment."""

    run: Path
    state: State
    decisions: int
    """Decisions made, as far as metrics and checkpoints tell: learning reports every rollout."""
    total: int
    speed: float | None
    """Decisions per second of wall time over the last updates; None before the first."""
    metrics: dict[str, float]
    """The last value of every scalar."""
    checkpoint: CheckpointStatus | None
    progress: TrainingProgress | None
    """Of a training in chunks."""
    last_line: str | None = None
    """What the log says last, without time and level."""

    @property
    def alive(self) -> bool:
        """Whether a process works on it."""
        return self.state in ("running", "comparing")

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the measured speed; None if it does not run or has no speed yet."""
        if self.state != "running" or not self.speed:
            return None
        return (self.total - self.decisions) / self.speed


def find_run(place: Path) -> RunFolder:
    """Return the run that a folder or a progress file is of, or the newest run below a folder.

    Raises:
        UserError: there is none.
    """
    if place.name == PROGRESS_FILE and place.is_file():
        return RunFolder(place.parent)
    if RunFolder(place).config.is_file():
        return RunFolder(place)
    newest = newest_run(place)
    if newest is None:
        raise UserError(
            f"{place}: there is no training to look at; name a run folder, a {PROGRESS_FILE}, a "
            "folder of runs, or one that trainings were started with as training.output_root"
        )
    return newest


def newest_run(root: Path, *, with_policy: bool = False) -> RunFolder | None:
    """Return the run anywhere below a folder that changed last; None if there is none.

    Args:
        with_policy: leave out runs that have not come to a policy.
    """
    runs = [run for run in _runs_below(root) if run.policy.exists() or not with_policy]
    return max(runs, key=lambda run: (_last_change(run), run.path), default=None)


def _runs_below(root: Path) -> Iterator[RunFolder]:
    """Yield all runs, of whatever config: those of scenarios have an output root of their own."""
    for place, folders, files in os.walk(root):
        run = RunFolder(Path(place))
        if run.config.name in files and run.log.name in files:
            yield run
            folders.clear()  # what a run keeps is no run


def checkpoint_folder(run: RunFolder) -> Path:
    """Return where a run saves its checkpoints.

    A relative path was meant from where the training was started, which nobody has to stand in
    today, and the tree may have been moved: it is looked for above the run folder, too.

    Raises:
        UserError: the run's config cannot be read.
    """
    said = Path(load_config(run.config).checkpointing.checkpoint_dir)
    above = [parent / said for parent in Path(os.path.abspath(run.path)).parents]
    places = [said, *above]
    own = (place for place in places if any(run.saved(saved) for _, saved in _whole(place)))
    return next(own, said)


def status_of(run: RunFolder, now: datetime) -> RunStatus:
    """Return how a run is going.

    Raises:
        UserError: its files cannot be read.
    """
    config = load_config(run.config)
    progress = read_progress(run.progress) if run.progress.exists() else None
    rows = _rows(run.metrics / "training.csv")
    checkpoint = _newest_checkpoint(run, now)
    total = config.training.total_requests if progress is None else progress.total_requests
    known = [int(rows[-1]["global_step"])] if rows else []
    if checkpoint is not None:
        known.append(checkpoint.manifest.global_step)
    return RunStatus(
        run=run.path,
        state=_state(run, progress, checkpoint, total),
        decisions=min(max(known, default=0), total),
        total=total,
        speed=_speed(rows),
        metrics=_last_values(rows),
        checkpoint=checkpoint,
        progress=progress,
        last_line=_last_line(run.log),
    )


def _state(
    run: RunFolder,
    progress: TrainingProgress | None,
    checkpoint: CheckpointStatus | None,
    total: int,
) -> State:
    record = run.record
    trained = record is not None and record.policy_of is not None and record.policy_of >= total
    if is_held(run.log):  # whoever writes the log holds it, and no longer than it lives
        return "comparing" if trained else "running"
    if trained:
        return "finished"
    reason = None if checkpoint is None else checkpoint.manifest.reason
    if progress is not None and progress.status == "completed":
        return "finished"
    if progress is not None and progress.status == "failed":
        # The driver writes down as failed what it was told to stop, and says so.
        stopped = (progress.error_message or "").startswith("stopped")
        return "stopped" if stopped else "failed"
    if checkpoint is not None and reason == "end" and checkpoint.manifest.global_step >= total:
        return "finished"
    if reason == "signal":
        return "stopped"
    return "failed" if reason == "exception" else "killed"


def _newest_checkpoint(run: RunFolder, now: datetime) -> CheckpointStatus | None:
    mine = [
        (path, manifest) for path, manifest in _whole(checkpoint_folder(run)) if run.saved(manifest)
    ]
    if not mine:
        return None
    path, manifest = mine[-1]
    age = now - datetime.fromisoformat(manifest.created_at)
    return CheckpointStatus(path, manifest, age.total_seconds())


def _whole(folder: Path) -> list[tuple[Path, Manifest]]:
    """Return the checkpoints of a folder and its archives that have a manifest, oldest first."""
    entries = catalog(folder, archives=True) if folder.is_dir() else []
    return [(entry.path, entry.manifest) for entry in entries if entry.manifest is not None]


def _last_line(log: Path) -> str | None:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LINE_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    said = [match[1] for line in lines if (match := _LOG_LINE.match(line))]
    return said[-1] if said else None


def _rows(table: Path) -> list[dict[str, str]]:
    """Return the whole rows of the metrics; the last one may be under way."""
    try:
        content = table.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    whole = content[: content.rfind("\n") + 1]
    return list(csv.DictReader(whole.splitlines()))


def _last_values(rows: list[dict[str, str]]) -> dict[str, float]:
    values: dict[str, float] = {}
    for row in rows:
        values.update({name: float(cell) for name, cell in row.items() if cell})
    values.pop("global_step", None)
    return values


def _speed(rows: list[dict[str, str]]) -> float | None:
    cells = [row["Speed/DecisionsPerSecond"] for row in rows]
    recent = [float(cell) for cell in cells if cell][-_RECENT_UPDATES:]
    return statistics.median(recent) if recent else None


def _last_change(run: RunFolder) -> float:
    files = (run.log, run.progress, run.config)
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
