"""The main job with its training in chunks: begun, gone on with after any death, or done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from ppo_scheduler.checkpoint.store import CheckpointInfo, CheckpointStore
from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs import chunk_record
from vidur_ext.runs.chunk_record import Order, TrainingProgress, write_progress
from vidur_ext.runs.chunk_recovery import find_chunked_run, recover
from vidur_ext.runs.ownership import OwnedRun, check_free, open_folder, owned_run
from vidur_ext.runs.resume_choice import Ask, Wishes, requests_done
from vidur_ext.runs.resumed_config import CommandLine, config_of_file, resumed_config
from vidur_ext.runs.start import Start, check_ready, decide, fitting, has_ended

_PATIENCE_S = 60.0
"""For the chunk of a driver that died: it is saving."""
_SHORT_PATIENCE_S = 5.0


def run_in_chunks(
    config: TrainingConfig,
    wishes: Wishes,
    order: Order,
    output_dir: Path | None,
    ask: Ask | None,
    said: CommandLine,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> bool:
    """Train in chunks; an unfinished training goes on without a question.

    Args:
        said: what the command line says of the config.
        say: tells the operator something that belongs into no log.

    Returns:
        False if the operator chose to leave.

    Raises:
        UserError: what was begun cannot go on as asked, or a chunk failed.
        Interrupted: a signal asked to stop; the chunk has saved.
    """
    if not config.checkpointing.enable_checkpoints:
        raise UserError(
            "--chunk-mode with checkpointing.enable_checkpoints=false: every chunk goes on from "
            "the checkpoint of the one before; switch checkpoints on"
        )
    begun = find_chunked_run(config, output_dir) if wishes.resume in ("ask", "auto") else None
    if begun is not None:
        own, kept = _own_config(begun, config, said)
        with owned_run(Start(own, run_dir=begun.path), _PATIENCE_S) as owned:
            job = recover(begun, own, order)
            start = replace(job.start, notes=kept, file=config_of_file(said.file))
            if job.progress.status != "completed":
                check_ready(own, say)
            _finish(start, owned, job.progress, quiet=quiet, say=say)
        return True
    check_free(config, _SHORT_PATIENCE_S)
    chosen = decide(config, wishes, output_dir, ask, said)
    if chosen is None:
        return False
    start = fitting(chosen)
    size = order.size(start.config)
    ended = has_ended(start)
    if not ended:
        check_ready(start.config, say)
    with owned_run(start) as owned:
        start = replace(start, run_dir=owned.folder.path)
        progress = None if ended else _planned(start, owned, order, size)
        _finish(start, owned, progress, quiet=quiet, say=say)
    return True


def _own_config(
    folder: RunFolder, config: TrainingConfig, said: CommandLine
) -> tuple[TrainingConfig, tuple[str, ...]]:
    """Return the config that a run was begun with, with what the command line says, and what the
    present file says otherwise."""
    recorded = config_of_file(folder.config)
    saved = {} if recorded is None else recorded.settings()
    resumed = resumed_config(saved, config, said, config_of_file(folder.config_file))
    return resumed.config, resumed.kept


def _planned(start: Start, owned: OwnedRun, order: Order, size: int) -> TrainingProgress:
    """Write the plan down; from here on a restart needs no answer."""
    open_folder(start, owned.folder)
    newest = CheckpointStore(start.config.checkpointing).latest()
    origin = _origin(start)
    progress = chunk_record.planned(
        start.config,
        size,
        owned.folder,
        run_id=owned.folder.identify(),
        config_file=order.config_file,
        external=start.external,
        done=0 if origin is None else requests_done(origin),
        checkpoint=None if origin is None else str(origin.path),
        replaces=None if newest is None else newest.manifest.sha256,
        now=datetime.now(timezone.utc),
    )
    write_progress(owned.folder.progress, progress)
    return progress


def _origin(start: Start) -> CheckpointInfo | None:
    """Return the checkpoint whose requests a training has done before its first chunk."""
    saving = start.config.checkpointing
    if start.origin is None and saving.fork_from_checkpoint is not None:
        return CheckpointStore(saving).find(saving.fork_from_checkpoint)
    return start.origin


def _finish(
    start: Start,
    owned: OwnedRun,
    progress: TrainingProgress | None,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    """Train what is left and compare; what is done is said and not done again.

    Args:
        progress: of the chunks; None if nothing is left that could be planned.
    """
    # The simulator takes seconds to import: not before it is known that the job can be done.
    from vidur_ext.runs.chunk_trainer import ChunkTrainer
    from vidur_ext.runs.pipeline import carry_out, judge_if_missing, say_finished

    if progress is None or progress.status == "completed":
        say_finished(start.config, owned.folder, say)
        judge_if_missing(start, owned, quiet=quiet, say=say)
    else:
        carry_out(start, owned, ChunkTrainer(progress, quiet=quiet), quiet=quiet)
