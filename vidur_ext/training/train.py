"""One training from its checkpoint, or from the beginning, to its policy."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
from ppo_scheduler.checkpoint.saver import Saver
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.files import disk_errors, write_file
from ppo_scheduler.monitoring.run_log import run_log
from ppo_scheduler.policy.routing_policy import (
    RoutingPolicy,
    read_policy_state,
    save_policy,
    save_policy_state,
)
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.resume_rules import Effect, differences
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.run_folder import RunFolder
from vidur_ext.training.instruments import open_instruments
from vidur_ext.training.session import TrainingSession
from vidur_ext.warmstart.external_model import log_same_choices
from vidur_ext.workload.run_workloads import workload_stream
from vidur_ext.workload.stream import RequestStream

_LOG = logging.getLogger("ppo")


@dataclass(frozen=True)
class Origin:
    """A checkpoint to go on from, as the same run or as a fork: a new run with its own folder."""

    loaded: LoadedCheckpoint
    fork: bool


def find_origin(
    store: CheckpointStore | None, section: CheckpointingSection, named: str | None
) -> Origin | None:
    """Return what the training goes on from; None is the beginning.

    Args:
        store: the folder this training saves to; None reads only.
        named: a path, or ``latest``; it has precedence over the config's keys.

    Raises:
        UserError: there is no such checkpoint, or it is bad.
    """
    configured = (section.resume_from_checkpoint or None, section.resume_step)
    source = next((s for s in (named, *configured) if s is not None), None)
    reader = store or CheckpointStore(section)
    if source is not None:
        return Origin(reader.load(source), fork=False)
    if section.fork_from_checkpoint is not None:
        return Origin(reader.load(section.fork_from_checkpoint), fork=True)
    return None


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
    stream: RequestStream | None = None
    """Requests from elsewhere than ``config.workload``."""


def run_training(job: Job) -> RunFolder:
    """Train and leave checkpoints, events, metrics and ``policy.pt``.

    Raises:
        UserError: a folder, file or checkpoint cannot be used as asked, or something was not
            saved.
        Interrupted: a signal asked to stop; the state has been saved.
    """
    config = job.config
    stream = job.stream or workload_stream(config, Purpose.WORKLOAD)
    torch.set_num_threads(config.training.torch_threads)
    with ExitStack() as stack:
        store = _open_store(config)
        if store is not None:
            stack.callback(store.close)
        origin = find_origin(store, config.checkpointing, job.load_checkpoint)
        folder = _run_folder(job, origin)
        stack.enter_context(run_log(folder.log, config.monitoring.log_level))
        _train(job, stream, folder, store, _fitting(origin, config))
    return folder


def _open_store(config: TrainingConfig) -> CheckpointStore | None:
    if not config.checkpointing.enable_checkpoints:
        return None
    store = CheckpointStore(config.checkpointing)
    store.prepare()
    return store


def _run_folder(job: Job, origin: Origin | None) -> RunFolder:
    if job.run_dir is not None:
        if not job.run_dir.isprintable():
            raise UserError(
                f"run folder {job.run_dir!a}: checkpoints note it as text, and this name is none; "
                "choose another one"
            )
        return RunFolder.at(Path(job.run_dir))
    if origin is not None and not origin.fork:
        return RunFolder.at(Path(origin.loaded.manifest.run_dir))
    root = Path(job.config.training.output_root)
    return RunFolder.create(root, "simulated_training", datetime.now())


def _fitting(origin: Origin | None, config: TrainingConfig) -> Origin | None:
    """Return the origin if it fits this training, None to start afresh as the config allows.

    Raises:
        UserError: it does not fit, and ``checkpointing.on_incompatible`` is "abort".
    """
    problems = [] if origin is None else misfits(origin.loaded, config)
    if origin is None or not problems:
        return origin
    listed = "\n".join(f"  {problem}" for problem in problems)
    if config.checkpointing.on_incompatible == "abort":
        raise UserError(
            f"{origin.loaded.path}: does not fit this training:\n{listed}\nRestore these "
            "settings, name another checkpoint, start afresh with --resume never, or set "
            'checkpointing.on_incompatible to "fresh"'
        )
    _LOG.warning("%s does not fit this training:\n%s", origin.loaded.path, listed)
    _LOG.warning("[PPO:checkpoint] Continuing with fresh training state")
    return None


def misfits(loaded: LoadedCheckpoint, config: TrainingConfig) -> list[str]:
    """Return why a checkpoint cannot be continued by this training; nothing if it can."""
    changed = differences(loaded.manifest.settings, config.settings())
    refused = [str(d) for d in changed if d.rule.effect is Effect.REFUSED]
    if refused:
        return refused
    seed = loaded.tree["simulation"]["seed"]
    if seed != config.training.seed:  # checkpoints of schema 1 carry no settings
        return [f"training.seed={seed} in the checkpoint, {config.training.seed} now"]
    try:
        RoutingPolicy(
            observation_schema(config.observation),
            config.actor_critic_architecture,
            config.observation.clip,
        ).load_state_dict(loaded.tree["learner"]["policy"])
    except IncompatibleState as error:
        return [str(error)]
    return []


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
    with ExitStack() as stack:
        instruments = stack.enter_context(
            open_instruments(
                config,
                folder,
                config.cluster.num_replicas,
                None if loaded is None else loaded.manifest.global_step,
                None if loaded is None else loaded.tree["metrics"],
                same_run=origin is not None and not origin.fork,
            )
        )
        background = config.checkpointing.save_async
        saver = None if store is None else stack.enter_context(Saver(store, background=background))
        actor = job.pretrained_actor if loaded is None else None
        session = TrainingSession(
            config,
            stream,
            folder.path,
            instruments,
            saver,
            warm_start=None if actor is None else read_policy_state(actor),
            stop_at_requests=job.stop_at_requests,
        )
        if actor is not None:
            log_same_choices(actor, session.learner.policy, session.learner.num_replicas)
        if store is not None:
            store.check_space(session.state_dict())
        if loaded is not None:
            _resume(session, loaded, config)
        elif store is not None and (aside := store.set_aside()) is not None:
            _LOG.info("moved the checkpoints of an earlier training to %s", aside)
        session.run()
        way_out = "Free space there, then resume from the last checkpoint"
        with disk_errors(folder.policy, "the trained policy was not written", way_out):
            _export(session, folder)
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
    write_file(folder.validation, (json.dumps(candidates.to_dict(), indent=2) + "\n").encode())
    _LOG.info(
        "trained %d decisions; the policy in %s is that of %s, the best of %d validated: "
        "objective %.3f s",
        session.requests_done, folder.policy, best.name(), len(candidates.scores),
        candidates.objective_s(best),
    )  # fmt: skip


def _resume(session: TrainingSession, loaded: LoadedCheckpoint, config: TrainingConfig) -> None:
    for path, reason in loaded.skipped:
        _LOG.warning("skipped %s: %s", path, reason)
    changed = differences(loaded.manifest.settings, config.settings())
    for difference in changed:
        if difference.rule.effect is not Effect.NONE:
            _LOG.info("changed since the checkpoint: %s", difference)
    session.load_state_dict(loaded.tree, changed)
    _LOG.info(
        "[Resume] PPO训练恢复 %s (global_step %d, %d requests done)",
        loaded.path,
        session.learner.global_step,
        session.requests_done,
    )
