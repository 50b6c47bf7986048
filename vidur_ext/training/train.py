"""One training from its checkpoint, or from the beginning, to its policy."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
from ppo_scheduler.checkpoint.saver import Saver
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, write_file
from ppo_scheduler.monitoring.run_log import run_log
from ppo_scheduler.parallel.process_group import ProcessLost
from ppo_scheduler.policy.routing_policy import (
    read_policy_state,
    save_policy,
    save_policy_state,
)
from vidur_ext.config.resume_rules import Effect
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.launched import launched_count
from vidur_ext.processes import compute_with
from vidur_ext.run_folder import Owner, RunFolder, home_of
from vidur_ext.training.beginning import Beginning, training_stream
from vidur_ext.training.inputs import CONTENTS, TRACE
from vidur_ext.training.instruments import open_instruments
from vidur_ext.training.origin import Origin, find_origin, log_fresh_start, unfit
from vidur_ext.training.session import TrainingSession
from vidur_ext.training.team import check_launched, gathered
from vidur_ext.warmstart.external_model import log_same_choices
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.stream import RequestStream
from vidur_ext.workload.trained_rows import doubt_about_held_out, trace_digest, trained_rows

_LOG = logging.getLogger("ppo")


@dataclass(frozen=True)
class Job:
    """One training: its config, where it begins and ends, and where it writes."""

    config: TrainingConfig
    run_dir: str | None = None
    """Folder of log, events and metrics; None is that of the resumed run, or a new one."""
    pretrained_actor: Path | None = None
    """Warm-started policy to begin from; a resumed training brings its own along."""
    load_checkpoint: str | None = None
    """Checkpoint to resume from: a path, or ``latest``."""
    stop_at_requests: int | None = None
    """End after this request of the stream, to be resumed; None trains the whole budget."""
    requests: RequestTable | None = None
    """From elsewhere than ``config.workload``; without texts and sessions."""
    owner: Owner | None = None
    """Who has locked the run's folders for longer than this training; None: it locks them."""


def run_training(job: Job) -> RunFolder:
    """Train and leave checkpoints, events, metrics and ``policy.pt``.

    Raises:
        UserError: a folder, file or checkpoint cannot be used as asked, or something was not
            saved.
        Interrupted: a signal asked to stop; the state has been saved.
    """
    config = job.config
    check_launched(config)
    left = config.parallel_training.max_restarts
    while True:
        try:
            return _run(job)
        except ProcessLost as lost:
            if left == 0 or job.owner is None or launched_count() > 1:
                raise
            left -= 1
            job = _after_loss(job, lost)


def _after_loss(job: Job, lost: ProcessLost) -> Job:
    """Return the training as it goes on: from its newest checkpoint, or as it began without one."""
    assert job.run_dir is not None, "the owner of a run knows its folder"
    folder = RunFolder(Path(job.run_dir))
    enabled = job.config.checkpointing.enable_checkpoints
    newest = CheckpointStore(job.config.checkpointing).latest() if enabled else None
    own = newest is not None and folder.saved(newest.manifest)
    with run_log(folder.log, job.config.monitoring.log_level):
        place = "its newest checkpoint" if own else "where it began: nothing was saved yet"
        _LOG.warning("%s. It goes on from %s", lost, place)
    return replace(job, load_checkpoint="latest") if own else job


def _run(job: Job) -> RunFolder:
    config = job.config
    stream = training_stream(config, job.requests)
    compute_with(config.training.torch_threads)
    with ExitStack() as stack:
        store = _open_store(job)
        if store is not None:
            stack.callback(store.close)
        origin = find_origin(store, config, job.load_checkpoint)
        problem = None if origin is None else unfit(origin, config)
        if problem is not None:
            origin = None
        folder = _own_folder(job, origin, stack)
        stack.enter_context(run_log(folder.log, config.monitoring.log_level))
        if problem is not None:
            log_fresh_start(problem)
        if job.requests is None:
            _note_trace(folder, config, origin)
        _train(job, stream, folder, store, origin)
    return folder


def _open_store(job: Job) -> CheckpointStore | None:
    section = job.config.checkpointing
    if not section.enable_checkpoints:
        return None
    store = CheckpointStore(section, lent_lock=None if job.owner is None else job.owner.lock)
    store.prepare()
    return store


def _own_folder(job: Job, origin: Origin | None, stack: ExitStack) -> RunFolder:
    """Return the run's folder, locked until the stack is closed, or by the owner of the run.

    Raises:
        UserError: another run is there, or another process writes there.
    """
    folder = _run_folder(job, origin)
    if job.owner is not None:
        return folder
    stack.enter_context(folder.lock())
    going_on = origin is not None and not origin.fork and folder.saved(origin.loaded.manifest)
    if folder.policy.exists() and not going_on:
        raise UserError(
            f"{folder.path}: holds a run already, which would be overwritten. Choose another "
            "folder, or continue that run from a checkpoint of its own"
        )
    return folder


def _run_folder(job: Job, origin: Origin | None) -> RunFolder:
    if job.run_dir is not None:
        return RunFolder.at(Path(job.run_dir))
    root = Path(job.config.training.output_root)
    if origin is not None and not origin.fork:
        home = home_of(origin.loaded.manifest, root)
        if home is not None:
            return home
    return RunFolder.create(root, "simulated_training", datetime.now())


def _note_trace(folder: RunFolder, config: TrainingConfig, origin: Origin | None) -> None:
    """Note which requests of a trace are trained on, and warn if they are held out by now."""
    record = folder.record_now()
    before = dict(record.trained)
    saved = {} if origin is None else origin.loaded.manifest.settings
    earlier, workload = saved.get(TRACE), config.workload
    if earlier is not None and earlier == trace_digest(workload):
        share = {"holdout_fraction": saved["workload.holdout_fraction"]}
        before = trained_rows(workload.model_copy(update=share), before)
    elif earlier is not None:
        before.setdefault(str(earlier), 0)
    doubt = doubt_about_held_out(workload, before)
    if doubt is not None:
        _LOG.warning("%s: %s", workload.trace_file, doubt)
    rows = trained_rows(workload, before)
    folder.write_record(record.model_copy(update={"trained": rows}))


def _train(
    job: Job,
    stream: RequestStream,
    folder: RunFolder,
    store: CheckpointStore | None,
    origin: Origin | None,
) -> None:
    """Run the session, begun afresh or continued from ``origin``, and export its policy."""
    config = job.config
    loaded = None if origin is None else origin.loaded
    record = folder.record_now()
    actor = job.pretrained_actor if loaded is None else None
    beginning = Beginning(
        config,
        job.requests,
        job.stop_at_requests,
        warm_start=None if actor is None else read_policy_state(actor),
        tree=None if loaded is None else loaded.tree,
        settings={} if loaded is None else loaded.manifest.settings,
    )
    with ExitStack() as stack:
        team = stack.enter_context(ExitStack())
        processes = team.enter_context(gathered(beginning))
        instruments = stack.enter_context(
            open_instruments(
                config,
                folder,
                config.cluster.num_replicas,
                None if loaded is None else loaded.manifest.global_step,
                None if loaded is None else loaded.tree["metrics"],
                same_run=origin is not None and not origin.fork,
                processes=processes,
            )
        )
        background = config.checkpointing.save_async
        saver = None if store is None else stack.enter_context(Saver(store, background=background))
        session = beginning.session(stream, folder, instruments, saver, processes)
        if actor is not None:
            log_same_choices(actor, session.learner.policy, session.learner.num_replicas)
        if store is not None:
            store.check_space(session.state_dict())
        if loaded is not None:
            _resume(session, loaded, beginning)
        elif store is not None and (aside := store.set_aside()) is not None:
            _LOG.info("moved the checkpoints of an earlier training to %s", aside)
        session.run()
        team.close()  # what is left may take long, and companions have ended
        folder.refuse_another_run(record)
        way_out = "Free space there, then resume from the last checkpoint"
        with disk_errors(folder.policy, "the trained policy was not written", way_out):
            _export(session, folder)
        done = {"policy_of": session.learner.global_step}
        folder.write_record(record.model_copy(update=done))
    if saver is not None:
        saver.raise_failures()
    instruments.raise_losses()


def _export(session: TrainingSession, folder: RunFolder) -> None:
    """Write the policy of the best validation, or without any the last one, and say which it is."""
    candidates = session.candidates
    best, policy = candidates.best, candidates.policy()
    if best is None or policy is None:
        save_policy(session.learner.policy, folder.policy)
        _LOG.info("trained %d decisions, policy in %s", session.requests_done, folder.policy)
        return
    save_policy_state(policy, folder.policy)
    told = candidates.to_dict(session.rivals())
    write_file(folder.validation, (json.dumps(told, indent=2) + "\n").encode())
    _LOG.info(
        "trained %d decisions; the policy in %s is that of %s, the best of %d validated: "
        "objective %.3f s",
        session.requests_done, folder.policy, best.name(), len(candidates.scores),
        candidates.objective_s(best),
    )  # fmt: skip


def _resume(session: TrainingSession, loaded: LoadedCheckpoint, beginning: Beginning) -> None:
    for path, reason in loaded.skipped:
        _LOG.warning("skipped %s: %s", path, reason)
    for difference in beginning.changed:
        if difference.rule.effect is not Effect.NONE:
            meant = difference.name not in CONTENTS
            level = logging.INFO if meant else logging.WARNING
            _LOG.log(level, "changed since the checkpoint: %s", difference)
    beginning.go_on(session)
    if loaded.tree["learner"]["updater"]["adamw"] is None:
        _LOG.warning(
            "%s holds no state of AdamW (checkpointing.save_optimizer_state was off): it starts "
            "afresh, so this training is not the one it would have been",
            loaded.path,
        )
    _LOG.info(
        "[Resume] PPO训练恢复 %s (global_step %d, %d requests done)",
        loaded.path,
        session.learner.global_step,
        session.requests_done,
    )
