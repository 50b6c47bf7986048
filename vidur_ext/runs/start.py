"""From what an operator wishes to where a run begins and in which folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from ppo_scheduler.checkpoint.reading import CheckpointInfo, step_path
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, write_file
from vidur_ext.config.loading import dump_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import EXTERNAL_RUNS, WARMSTART_RUNS, RunFolder
from vidur_ext.runs.resume_choice import (
    Ask,
    Choice,
    ExternalOnly,
    Quit,
    Resume,
    WarmStart,
    Wishes,
    choose,
    describe,
)


@dataclass(frozen=True)
class Start:
    """Where a run begins; every question is answered."""

    config: TrainingConfig
    load_checkpoint: str | None = None
    """Checkpoint to continue (a path, or ``latest``); None begins a new training."""
    run_dir: Path | None = None
    """Folder of the run; None is a new one below ``training.output_root``."""
    external: Path | None = None
    """Model a new training begins with: fine-tuned if ``warmstart.enabled``, else as it is."""
    demonstrations: Path | None = None
    """Set that a new training clones from; None collects new demonstrations."""
    warm_start_done: bool = False
    """The folder holds the ``pretrained_actor.pt`` of an interrupted beginning."""
    origin: CheckpointInfo | None = field(default=None, compare=False)
    """What ``load_checkpoint`` led to when it was chosen, verified."""


def decide(
    config: TrainingConfig,
    wishes: Wishes,
    output_dir: Path | None,
    ask: Ask | None,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> Start | None:
    """Answer how to begin; None if the operator chose to leave.

    Args:
        output_dir: folder the operator chose for the run.
        ask: shows a text and returns a line of input; None without a terminal.

    Raises:
        UserError: as ``choose``; the checkpoint cannot be used; the folder holds a run already.
    """
    wishes.check()
    if wishes.resume == "never" or (wishes.use_external and wishes.resume == "ask"):
        config = without_origin(config)
    latest = _latest(config, wishes)
    choice = _choice(config, wishes, latest, ask, now)
    if isinstance(choice, Quit):
        return None
    if isinstance(choice, Resume):
        origin = _origin(config, choice, latest)
        folder = output_dir or Path(origin.manifest.run_dir)
        return Start(config, choice.checkpoint, folder, origin=origin)
    if output_dir is not None and (output_dir / "ppo_training.log").exists():
        raise UserError(
            f"--output-dir {output_dir}: holds a run already. Choose another folder, continue that "
            "run with --resume latest, or leave --output-dir out for a new folder"
        )
    if isinstance(choice, ExternalOnly):
        config = _without_cloning(config)
    return Start(config, run_dir=output_dir, external=wishes.external)


def open_folder(start: Start) -> RunFolder:
    """Create or reuse the run's folder, and keep the config there."""
    training = start.config.training
    if start.run_dir is None:
        kind = WARMSTART_RUNS if start.external is None else EXTERNAL_RUNS
        folder = RunFolder.create(Path(training.output_root), kind, datetime.now())
    else:
        folder = RunFolder.at(start.run_dir)
    with disk_errors(folder.path, "the run cannot write there", "Choose another --output-dir"):
        write_file(folder.config, dump_config(start.config).encode())
    return folder


def go_on(config: TrainingConfig, folder: RunFolder) -> Start:
    """Return how a run goes on that has its folder and its checkpoint folder to itself.

    It may have been killed at any moment, or not have begun. Nobody is asked.
    """
    saved = config.checkpointing.enable_checkpoints
    newest = CheckpointStore(config.checkpointing).latest() if saved else None
    return Start(
        config,
        load_checkpoint=None if newest is None else "latest",
        run_dir=folder.path,
        warm_start_done=folder.pretrained_actor.exists(),
    )


def begins_with_actor(start: Start) -> bool:
    """Tell whether a new training begins with a policy that was trained before it."""
    new = start.load_checkpoint is None
    new = new and start.config.checkpointing.fork_from_checkpoint is None
    return new and (start.config.warmstart.enabled or start.external is not None)


def refuse_two_beginnings(config: TrainingConfig, wishes: Wishes, demonstrations: Path) -> None:
    """Raise ``UserError`` if the config answers how to begin, and not with demonstrations."""
    section = config.checkpointing
    origins = {
        name: getattr(section, name)
        for name in ("resume_from_checkpoint", "resume_step", "fork_from_checkpoint")
        if getattr(section, name) not in (None, False)
    }
    if origins and wishes.resume in ("ask", "auto"):
        [(name, value), *_] = origins.items()
        raise UserError(
            f"--demonstrations {demonstrations} and checkpointing.{name} {value} each name what a "
            "training begins with: leave one out, or say --resume never"
        )
    if not config.warmstart.enabled:
        raise UserError(
            f"--demonstrations {demonstrations} with warmstart.enabled=false: nothing is cloned. "
            "Switch cloning on, or leave --demonstrations out"
        )


def with_demonstrations(start: Start, demonstrations: Path) -> Start | None:
    """Return a start that clones from a set, None if this one clones nothing."""
    clones = begins_with_actor(start) and start.config.warmstart.enabled
    return replace(start, demonstrations=demonstrations) if clones else None


def without_origin(config: TrainingConfig) -> TrainingConfig:
    """Return the config with no checkpoint to go on from: the command line said so."""
    nothing = {"resume_from_checkpoint": False, "resume_step": None, "fork_from_checkpoint": None}
    return config.model_copy(
        update={"checkpointing": config.checkpointing.model_copy(update=nothing)}
    )


def _without_cloning(config: TrainingConfig) -> TrainingConfig:
    return config.model_copy(
        update={"warmstart": config.warmstart.model_copy(update={"enabled": False})}
    )


def _latest(config: TrainingConfig, wishes: Wishes) -> CheckpointInfo | None:
    """Return the newest good checkpoint where it matters for how to begin."""
    if not config.checkpointing.enable_checkpoints:
        if wishes.resume in ("ask", "never", "auto"):
            return None
        raise UserError(
            f"--resume {wishes.resume} with checkpointing.enable_checkpoints=false: switch "
            "checkpoints on to continue a training"
        )
    matters = wishes.resume in ("ask", "auto", "latest")
    return CheckpointStore(config.checkpointing).latest() if matters else None


def _choice(
    config: TrainingConfig,
    wishes: Wishes,
    latest: CheckpointInfo | None,
    ask: Ask | None,
    now: Callable[[], datetime],
) -> Choice:
    if wishes.resume == "ask" or (wishes.resume == "auto" and latest is None):
        configured = _configured(config.checkpointing)
        if configured == WarmStart() and wishes.external is not None:
            raise UserError(
                f"--external-pretrain {wishes.external} and checkpointing.fork_from_checkpoint "
                f"{config.checkpointing.fork_from_checkpoint} each name what a new training begins "
                "with: leave one out"
            )
        if configured is not None:
            return configured
    return choose(wishes, latest, ask, lambda info: describe(info, config.settings(), now()))


def _configured(section: CheckpointingSection) -> Choice | None:
    """Return what the config says of the beginning, None if it leaves it open."""
    if section.resume_from_checkpoint:
        return Resume(section.resume_from_checkpoint)
    if section.resume_step is not None:
        return Resume(str(step_path(Path(section.checkpoint_dir), section.resume_step)))
    return None if section.fork_from_checkpoint is None else WarmStart()


def _origin(
    config: TrainingConfig, choice: Resume, latest: CheckpointInfo | None
) -> CheckpointInfo:
    """Return the checkpoint to continue, verified; the newest one is already.

    Raises:
        UserError: it cannot be used.
    """
    if latest is not None and choice.checkpoint in ("latest", str(latest.path)):
        return latest
    return CheckpointStore(config.checkpointing).find(choice.checkpoint)
