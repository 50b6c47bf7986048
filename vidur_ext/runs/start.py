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
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder, home_of
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
    is_finished,
    is_refused,
)
from vidur_ext.runs.resumed_config import (
    NOTHING_SAID,
    CommandLine,
    Resumed,
    config_of_file,
    resumed_config,
)
from vidur_ext.training.inputs import settings_of


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
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What the log is to say of how the run goes on."""
    file: TrainingConfig | None = field(default=None, compare=False)
    """What the named config file says by itself."""
    left: str | None = field(default=None, compare=False)
    """Why a checkpoint that was to be continued is not."""


def decide(
    config: TrainingConfig,
    wishes: Wishes,
    output_dir: Path | None,
    ask: Ask | None,
    said: CommandLine = NOTHING_SAID,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> Start | None:
    """Answer how to begin; None if the operator chose to leave. Nothing is changed on the disk.

    A training that goes on does so with its own settings: see ``resumed_config``.

    Args:
        config: of file and command line.
        output_dir: folder the operator chose for the run.
        ask: shows a text and returns a line of input; None without a terminal.
        said: what the command line says of the config.

    Raises:
        UserError: as ``choose``; the checkpoint cannot be used; the folder holds a run already.
    """
    wishes.check()
    if wishes.resume == "never" or (wishes.use_external and wishes.resume == "ask"):
        config = without_origin(config)
    latest = _latest(config, wishes)

    def shown(info: CheckpointInfo) -> str:
        resumed = _resumed(config, info, output_dir, said)
        return describe(info, settings_of(resumed.config), resumed.kept, now())

    def refused(info: CheckpointInfo) -> bool:
        resumed = _resumed(config, info, output_dir, said).config
        abort = resumed.checkpointing.on_incompatible == "abort"
        return abort and is_refused(info, settings_of(resumed))

    file = config_of_file(said.file)
    choice = _choice(config, wishes, latest, ask, shown, refused)
    if isinstance(choice, Quit):
        return None
    if isinstance(choice, Resume):
        origin = _origin(config, choice, latest)
        _refuse_used_folder(output_dir, origin)
        resumed = _resumed(config, origin, output_dir, said)
        home = home_of(origin.manifest, Path(config.training.output_root))
        notes = resumed.kept
        if home is None and output_dir is None:
            notes = (*notes, _away(origin, config))
        run_dir = output_dir or (None if home is None else home.path)
        return Start(
            resumed.config, choice.checkpoint, run_dir, origin=origin, notes=notes, file=file
        )
    _refuse_used_folder(output_dir, None)
    if isinstance(choice, ExternalOnly):
        config = _without_cloning(config)
    return Start(config, run_dir=output_dir, external=wishes.external, file=file)


def _resumed(
    config: TrainingConfig, origin: CheckpointInfo, output_dir: Path | None, said: CommandLine
) -> Resumed:
    home = home_of(origin.manifest, Path(config.training.output_root))
    if home is None and output_dir is not None:
        home = RunFolder(output_dir)
    file_then = None if home is None else config_of_file(home.config_file)
    return resumed_config(origin.manifest.settings, config, said, file_then)


def _away(origin: CheckpointInfo, config: TrainingConfig) -> str:
    return (
        f"the run of {origin.path} is not below training.output_root={config.training.output_root}:"
        f" it goes on in a new folder, and {origin.manifest.run_dir} is left alone"
    )


def _refuse_used_folder(output_dir: Path | None, origin: CheckpointInfo | None) -> None:
    """A folder the operator names is a new one, or that of the run that goes on."""
    if output_dir is None:
        return
    others = RunFolder(output_dir).of_others()
    if others is not None:
        raise UserError(
            f"--output-dir {output_dir}: {others.name} in it is of no run and would be replaced. "
            "Choose another folder, or leave --output-dir out for a new one"
        )
    if not RunFolder(output_dir).log.exists():
        return
    if origin is None or not RunFolder(output_dir).saved(origin.manifest):
        raise UserError(
            f"--output-dir {output_dir}: holds a run already. Choose another folder, continue that "
            "run with --resume latest, or leave --output-dir out for a new folder"
        )


def fitting(start: Start) -> Start:
    """Return the start if its checkpoint can be parsed and continued, or else a fresh one.

    Raises:
        UserError: it cannot, and ``checkpointing.on_incompatible`` does not allow to start afresh.
    """
    section = start.config.checkpointing
    if start.load_checkpoint is None and section.fork_from_checkpoint is None:
        return start
    # Torch takes a second to import: whoever begins anew, or leaves, does without.
    from vidur_ext.training.origin import find_origin, unfit

    origin = find_origin(None, start.config, start.load_checkpoint)
    problem = None if origin is None else unfit(origin, start.config)
    if problem is None:
        return start
    used = start.run_dir is not None and RunFolder(start.run_dir).log.exists()
    run_dir = None if used else start.run_dir
    return Start(without_origin(start.config), run_dir=run_dir, file=start.file, left=problem)


def check_ready(config: TrainingConfig, say: Callable[[str], None]) -> None:
    """Check what a training would otherwise end in after its folder was made, or after hours.

    Args:
        config: what the run goes on with, which is not always that of the command line.
        say: tells the operator something that belongs into no log.

    Raises:
        UserError: as ``check_feasible`` and ``check_monitoring``.
    """
    say("checking that machine, cluster and workload are up to the training")
    # These take seconds to import; Vidur, the second, brings W&B along.
    from vidur_ext.training.instruments import check_monitoring

    check_monitoring([config])
    from vidur_ext.training.feasible import check_feasible

    check_feasible(config)


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
        origin=newest,
    )


def has_ended(start: Start) -> bool:
    """Tell whether the training is done: its end is saved, and the policy is what came of it."""
    if start.origin is None or start.run_dir is None:
        return False
    folder, step = RunFolder(start.run_dir), start.origin.manifest.global_step
    record = folder.record
    exported = record is not None and record.policy_of == step and folder.policy.exists()
    own = folder.saved(start.origin.manifest)
    return own and exported and is_finished(start.origin, start.config.training.total_requests)


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
    shown: Callable[[CheckpointInfo], str],
    refused: Callable[[CheckpointInfo], bool],
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
    return choose(wishes, latest, ask, shown, refused)


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
