"""What ``python -m vidur_ext.main`` does for ``ppo_modular``: train on the configured stream."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from vidur.request_generator import RequestGeneratorRegistry

from ppo_scheduler.checkpoint.store import CheckpointStore, LoadedCheckpoint
from ppo_scheduler.config.training_config import LearnerConfig
from ppo_scheduler.monitoring.run_log import run_log
from ppo_scheduler.policy.policy_file import read_policy_state, save_policy
from vidur_ext.training.instruments import open_instruments
from vidur_ext.training.run_folder import RunFolder
from vidur_ext.training.session import TrainingSession
from vidur_ext.workload.request_generator import WorkloadRequestGeneratorConfig, build_stream
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.stream import RequestStream
from vidur_ext.workload.trace_stream import TraceStream

_LOG = logging.getLogger("ppo")
_NOT_SETTINGS = (
    "_output_dir",
    "_run_dir",
    "_load_checkpoint",
    "_pretrained_actor",
    "_stop_at_requests",
)


def run_training(simulation_config: Any) -> RunFolder:
    """Train as the flags say and leave checkpoints, events, metrics and ``policy.pt``.

    Raises:
        UserError: a folder, file or checkpoint cannot be used as asked.
        Interrupted: a signal asked to stop; the state has been saved.
    """
    scheduler_config = simulation_config.cluster_config.global_scheduler_config
    learner_config: LearnerConfig = scheduler_config.to_learner_config()
    stream, total = _stream(simulation_config, learner_config)
    learner_config = _with_budget(learner_config, total)
    torch.set_num_threads(learner_config.training.torch_threads)

    store = _open_store(learner_config)
    try:
        resumed = _resumed(store, learner_config, scheduler_config.load_checkpoint)
        folder = _run_folder(scheduler_config.run_dir, learner_config, resumed)
        with run_log(folder.log, learner_config.monitoring.log_level):
            _train(simulation_config, learner_config, stream, folder, store, resumed)
    finally:
        if store is not None:
            store.close()
    return folder


def _train(
    simulation_config: Any,
    learner_config: LearnerConfig,
    stream: RequestStream,
    folder: RunFolder,
    store: CheckpointStore | None,
    resumed: LoadedCheckpoint | None,
) -> None:
    """Run the session, begun afresh or continued from ``resumed``, and export its policy."""
    scheduler_config = simulation_config.cluster_config.global_scheduler_config
    num_replicas = simulation_config.cluster_config.num_replicas
    resume_step = None if resumed is None else resumed.manifest.global_step
    with open_instruments(learner_config, folder, num_replicas, resume_step) as instruments:
        session = TrainingSession(
            simulation_config,
            learner_config,
            stream,
            folder.path,
            instruments,
            store,
            config_digest=settings_digest(simulation_config),
            warm_start=_warm_start(scheduler_config.pretrained_actor, resumed),
            stop_at_requests=scheduler_config.stop_at_requests,
        )
        if resumed is not None:
            _resume(session, resumed)
        elif store is not None and (aside := store.set_aside()) is not None:
            _LOG.info("moved the checkpoints of an earlier training to %s", aside)
        session.run()
        save_policy(session.learner.policy, folder.policy)
        _LOG.info("trained %d decisions, policy in %s", session.requests_done, folder.policy)


def _resume(session: TrainingSession, resumed: LoadedCheckpoint) -> None:
    for path, reason in resumed.skipped:
        _LOG.warning("skipped %s: %s", path, reason)
    session.load_state_dict(resumed.tree)
    _LOG.info(
        "[Resume] PPO训练恢复 %s (global_step %d, %d requests done)",
        resumed.path,
        session.learner.global_step,
        session.requests_done,
    )


def settings_digest(simulation_config: Any) -> str:
    """Return a digest of all flags that are settings (not places) of a run."""
    flags = {
        name: value
        for name, value in simulation_config.to_dict().items()
        if not name.endswith(_NOT_SETTINGS)
    }
    return hashlib.sha256(json.dumps(flags, sort_keys=True, default=str).encode()).hexdigest()


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


def _resumed(
    store: CheckpointStore | None, config: LearnerConfig, path: str | None
) -> LoadedCheckpoint | None:
    if path is None:
        return None
    reader = store or CheckpointStore(config.checkpointing)
    return reader.load(path)


def _run_folder(
    run_dir: str | None, config: LearnerConfig, resumed: LoadedCheckpoint | None
) -> RunFolder:
    if run_dir is not None:
        return RunFolder.at(Path(run_dir))
    if resumed is not None:
        return RunFolder.at(Path(resumed.manifest.run_dir))
    return RunFolder.create(Path(config.training.output_root), "simulated_training", datetime.now())


def _warm_start(path: str | None, resumed: LoadedCheckpoint | None) -> dict[str, Any] | None:
    """Return the policy to begin from; a resumed training brings its own along."""
    if resumed is not None or path is None:
        return None
    return read_policy_state(Path(path))
