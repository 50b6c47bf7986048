"""One training from its checkpoint, or from the beginning, to its policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from vidur.request_generator import RequestGeneratorRegistry

from ppo_scheduler.checkpoint.saver import Saver
from ppo_scheduler.checkpoint.store import CheckpointStore, LoadedCheckpoint
from ppo_scheduler.config.learner_sections import CheckpointingSection, LearnerConfig
from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.monitoring.run_log import run_log
from ppo_scheduler.policy.routing_policy import RoutingPolicy, read_policy_state, save_policy
from vidur_ext.config.resume_rules import Effect, differences
from vidur_ext.config.training_config import misfit
from vidur_ext.routing.features import observation_schema
from vidur_ext.run_folder import RunFolder
from vidur_ext.training.instruments import open_instruments
from vidur_ext.training.session import TrainingSession
from vidur_ext.vidur.requests import WorkloadRequestGeneratorConfig, build_stream
from vidur_ext.vidur.settings import settings_of
from vidur_ext.warmstart.external_model import log_same_choices
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.stream import RequestStream
from vidur_ext.workload.trace_stream import TraceStream


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


def misfits(
    loaded: LoadedCheckpoint, simulation_config: Any, learner_config: LearnerConfig
) -> list[str]:
    """Return why a checkpoint cannot be continued by this training; nothing if it can."""
    changed = differences(loaded.manifest.settings, settings_of(simulation_config))
    refused = [str(d) for d in changed if d.rule.effect is Effect.REFUSED]
    if refused:
        return refused
    seed = loaded.tree["simulation"]["seed"]
    if seed != learner_config.training.seed:  # checkpoints of schema 1 carry no settings
        return [f"training.seed={seed} in the checkpoint, {learner_config.training.seed} now"]
    try:
        RoutingPolicy(
            observation_schema(learner_config.observation),
            learner_config.actor_critic_architecture,
            learner_config.observation.clip,
        ).load_state_dict(loaded.tree["learner"]["policy"])
    except IncompatibleState as error:
        return [str(error)]
    return []


_LOG = logging.getLogger("ppo")


def run_training(simulation_config: Any) -> RunFolder:
    """Train as the flags say and leave checkpoints, events, metrics and ``policy.pt``.

    Raises:
        UserError: a folder, file or checkpoint cannot be used as asked, or something was not
            saved.
        Interrupted: a signal asked to stop; the state has been saved.
    """
    scheduler_config = simulation_config.cluster_config.global_scheduler_config
    learner_config: LearnerConfig = scheduler_config.to_learner_config()
    stream, total = _stream(simulation_config, learner_config)
    learner_config = _with_budget(learner_config, total)
    rollout_len = learner_config.ppo_config.rollout_len
    problem = misfit(scheduler_config.engine, scheduler_config.num_envs, rollout_len, total)
    if problem is not None:
        raise UserError(problem)
    torch.set_num_threads(learner_config.training.torch_threads)

    with ExitStack() as stack:
        store = _open_store(learner_config)
        if store is not None:
            stack.callback(store.close)
        origin = find_origin(store, learner_config.checkpointing, scheduler_config.load_checkpoint)
        folder = _run_folder(scheduler_config.run_dir, learner_config, origin)
        stack.enter_context(run_log(folder.log, learner_config.monitoring.log_level))
        origin = _fitting(origin, simulation_config, learner_config)
        _train(simulation_config, learner_config, stream, folder, store, origin)
    return folder


def _fitting(
    origin: Origin | None, simulation_config: Any, learner_config: LearnerConfig
) -> Origin | None:
    """Return the origin if it fits this training, None to start afresh as the config allows.

    Raises:
        UserError: it does not fit, and ``checkpointing.on_incompatible`` is "abort".
    """
    problems = [] if origin is None else misfits(origin.loaded, simulation_config, learner_config)
    if origin is None or not problems:
        return origin
    listed = "\n".join(f"  {problem}" for problem in problems)
    if learner_config.checkpointing.on_incompatible == "abort":
        raise UserError(
            f"{origin.loaded.path}: does not fit this training:\n{listed}\nRestore these "
            "settings, name another checkpoint, start afresh with --resume never, or set "
            'checkpointing.on_incompatible to "fresh"'
        )
    _LOG.warning("%s does not fit this training:\n%s", origin.loaded.path, listed)
    _LOG.warning("[PPO:checkpoint] Continuing with fresh training state")
    return None


def _train(
    simulation_config: Any,
    learner_config: LearnerConfig,
    stream: RequestStream,
    folder: RunFolder,
    store: CheckpointStore | None,
    origin: Origin | None,
) -> None:
    """Run the session, begun afresh or continued from ``origin``, and export its policy."""
    scheduler_config = simulation_config.cluster_config.global_scheduler_config
    loaded = None if origin is None else origin.loaded
    with ExitStack() as stack:
        instruments = stack.enter_context(
            open_instruments(
                learner_config,
                folder,
                simulation_config.cluster_config.num_replicas,
                None if loaded is None else loaded.manifest.global_step,
                None if loaded is None else loaded.tree["metrics"],
                same_run=origin is not None and not origin.fork,
            )
        )
        background = learner_config.checkpointing.save_async
        saver = None if store is None else stack.enter_context(Saver(store, background=background))
        session = TrainingSession(
            simulation_config,
            learner_config,
            stream,
            folder.path,
            instruments,
            saver,
            warm_start=_warm_start(scheduler_config.pretrained_actor, loaded),
            stop_at_requests=scheduler_config.stop_at_requests,
        )
        if loaded is None and scheduler_config.pretrained_actor is not None:
            actor = Path(scheduler_config.pretrained_actor)
            log_same_choices(actor, session.learner.policy, session.learner.num_replicas)
        if store is not None:
            store.check_space(session.state_dict())
        if loaded is not None:
            _resume(session, loaded, settings_of(simulation_config))
        elif store is not None and (aside := store.set_aside()) is not None:
            _LOG.info("moved the checkpoints of an earlier training to %s", aside)
        session.run()
        save_policy(session.learner.policy, folder.policy)
        _LOG.info("trained %d decisions, policy in %s", session.requests_done, folder.policy)
    if saver is not None:
        saver.raise_failures()
    instruments.raise_failures()


def _resume(
    session: TrainingSession, loaded: LoadedCheckpoint, settings: Mapping[str, Any]
) -> None:
    for path, reason in loaded.skipped:
        _LOG.warning("skipped %s: %s", path, reason)
    changed = differences(loaded.manifest.settings, settings)
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


def _stream(simulation_config: Any, learner_config: LearnerConfig) -> tuple[RequestStream, int]:
    """Return the request stream and how many of its requests to train on."""
    generator_config = simulation_config.request_generator_config
    if isinstance(generator_config, WorkloadRequestGeneratorConfig):
        return build_stream(generator_config), learner_config.training.total_requests
    requests = RequestGeneratorRegistry.get(
        generator_config.get_type(), generator_config
    ).generate()
    table = RequestTable.from_rows(
        [(r.arrived_at, r.num_prefill_tokens, r.num_decode_tokens) for r in requests]
    )
    return TraceStream(table), len(table)


def _with_budget(config: LearnerConfig, total: int) -> LearnerConfig:
    training = config.training.model_copy(update={"total_requests": total})
    return config.model_copy(update={"training": training})


def _open_store(config: LearnerConfig) -> CheckpointStore | None:
    if not config.checkpointing.enable_checkpoints:
        return None
    store = CheckpointStore(config.checkpointing)
    store.prepare()
    return store


def _run_folder(run_dir: str | None, config: LearnerConfig, origin: Origin | None) -> RunFolder:
    if run_dir is not None:
        if not run_dir.isprintable():
            raise UserError(
                f"run folder {run_dir!a}: checkpoints note it as text, and this name is none; "
                "choose another one"
            )
        return RunFolder.at(Path(run_dir))
    if origin is not None and not origin.fork:
        return RunFolder.at(Path(origin.loaded.manifest.run_dir))
    return RunFolder.create(Path(config.training.output_root), "simulated_training", datetime.now())


def _warm_start(path: str | None, loaded: LoadedCheckpoint | None) -> dict[str, Any] | None:
    """Return the policy to begin from; a resumed training brings its own along."""
    if loaded is not None or path is None:
        return None
    return read_policy_state(Path(path))
