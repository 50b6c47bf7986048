"""The main job with its training in chunks: begun, gone on with after any death, or done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from ppo_scheduler.checkpoint.store import CheckpointInfo, CheckpointStore
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import FileLock, disk_errors
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs import chunk_record
from vidur_ext.runs.chunk_record import Order, write_progress
from vidur_ext.runs.chunk_recovery import Recovered, find_chunked_run, recover, requests_done
from vidur_ext.runs.resume_choice import Ask, Wishes
from vidur_ext.runs.start import Start, decide, open_folder

_DRIVER_LOCK = ".driver.lock"
_PATIENCE_S = 60.0


def only_driver(run: Path) -> FileLock:
    """Be the only process that drives the chunks of a run, until the lock is released.

    Raises:
        UserError: another process does, or the folder cannot be written.
    """
    with disk_errors(run, "the run cannot be locked", "Choose another --output-dir"):
        return FileLock(
            run / _DRIVER_LOCK,
            "is training there in chunks. Wait for it or stop it, or begin another training with "
            "an --output-dir and a checkpointing.checkpoint_dir of its own",
        )


def run_in_chunks(
    config: TrainingConfig,
    wishes: Wishes,
    order: Order,
    output_dir: Path | None,
    ask: Ask | None,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> bool:
    """Train in chunks; an unfinished training goes on without a question.

    Args:
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
    store = CheckpointStore(config.checkpointing)
    with ExitStack() as stack:
        begun = find_chunked_run(config, output_dir) if wishes.resume in ("ask", "auto") else None
        if begun is not None:
            stack.enter_context(only_driver(begun.path))
            store.wait_for_writer(_PATIENCE_S)  # a dead driver's chunk is saving there
            job: Recovered | None = recover(begun, config, order)
        else:
            store.wait_for_writer(5.0)
            job = _begin(config, wishes, order, output_dir, ask, stack)
        if job is None:
            return False
        _finish(job, quiet=quiet, say=say)
    return True


def _begin(
    config: TrainingConfig,
    wishes: Wishes,
    order: Order,
    output_dir: Path | None,
    ask: Ask | None,
    stack: ExitStack,
) -> Recovered | None:
    """Answer how to begin and write the plan down; from here on a restart needs no answer."""
    start = decide(config, wishes, output_dir, ask)
    if start is None:
        return None
    from vidur_ext.workload.run_workloads import describe_workload

    describe_workload(start.config)  # a trace that cannot be read is said before anything is made
    folder = open_folder(start)
    stack.enter_context(only_driver(folder.path))
    origin = _origin(start)
    progress = chunk_record.planned(
        start.config,
        order.size(start.config),
        folder,
        config_file=order.config_file,
        external=start.external,
        done=0 if origin is None else requests_done(origin),
        checkpoint=None if origin is None else str(origin.path),
        now=datetime.now(timezone.utc),
    )
    write_progress(folder.progress, progress)
    return Recovered(progress, replace(start, run_dir=folder.path))


def _origin(start: Start) -> CheckpointInfo | None:
    """Return the checkpoint whose requests a training has done before its first chunk."""
    saving = start.config.checkpointing
    if start.origin is None and saving.fork_from_checkpoint is not None:
        return CheckpointStore(saving).find(saving.fork_from_checkpoint)
    return start.origin


def _finish(job: Recovered, *, quiet: bool, say: Callable[[str], None]) -> None:
    """Train what is left and compare; what is done is said and not done again."""
    start, progress = job.start, job.progress
    assert start.run_dir is not None
    compared = RunFolder(start.run_dir).comparison_json.exists()
    done = progress.status == "completed"
    if done:
        say(
            f"all {progress.total_requests} requests are trained already, in "
            f"{progress.total_chunks} chunks: {start.run_dir}\nGo on with a larger "
            "--total-requests and --resume latest, or begin a new training with --force-warmstart"
        )
        if compared or not start.config.evaluation.enabled:
            return
        say("the comparison is missing:")
    from vidur_ext.runs.pipeline import run_pipeline

    def train(start: Start, folder: RunFolder) -> None:
        # The simulator takes seconds to import: not before the run has said what it does.
        from vidur_ext.runs.chunk_trainer import ChunkTrainer

        if not done:
            ChunkTrainer(progress, quiet=quiet)(start, folder)

    run_pipeline(start, quiet=quiet, train=train)
