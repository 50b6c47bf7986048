"""The main job: warm start, train, judge.

Torch and the simulator take seconds to import: each step does it for itself, so that a run says at
once where it is and what it will be trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_scheduler.errors import Interrupted
from ppo_scheduler.monitoring.run_log import run_log
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.start import Start, begins_with_actor, open_folder
from vidur_ext.workload.run_workloads import describe_workload

if TYPE_CHECKING:
    from vidur_ext.training.train import Job
    from vidur_ext.warmstart.taught_policy import Report

_LOG = logging.getLogger("ppo")

Trainer = Callable[[Start, RunFolder], None]
"""Trains to the end of the budget; the folder holds what the training begins with."""


def run_pipeline(start: Start, *, quiet: bool, train: Trainer | None = None) -> RunFolder:
    """Run the whole job in a folder of its own.

    Args:
        train: trains in another way than in one go.
    """
    config = start.config
    workload = describe_workload(config)
    folder = open_folder(start)
    with run_log(folder.log, config.monitoring.log_level, quiet=quiet):
        _LOG.info("run folder %s", folder.path)
        _LOG.info("workload: %s", workload)
        if begins_with_actor(start) and not start.warm_start_done:
            warm_start(config, folder, start.external, start.demonstrations)
        (train or train_in_one_go)(start, folder)
        if config.evaluation.enabled:
            from vidur_ext.evaluation.judging import judge, origin_of, policies_of

            _set_torch_threads(config)
            try:
                judge(config, policies_of(folder), folder, quiet, origin_of(folder))
            except Interrupted as stop:
                raise stop.saying(
                    f"the training is saved: judge it with vidur-ppo compare --run {folder.path}"
                ) from None
    return folder


def warm_start(
    config: TrainingConfig, folder: RunFolder, external: Path | None, demonstrations: Path | None
) -> None:
    """Make ``pretrained_actor.pt``: taught, fine-tuned, or the external model as it is.

    Args:
        demonstrations: set to learn from; None collects new demonstrations.
    """
    from vidur_ext.warmstart.external_model import adopt
    from vidur_ext.warmstart.teaching import teach

    _set_torch_threads(config)
    if not config.warmstart.enabled:
        assert external is not None, "nothing to begin with"
        adopt(external, folder.pretrained_actor, config)
        return
    teach(config, folder, _report, demonstrations=demonstrations, initial=external)


def train_in_one_go(start: Start, folder: RunFolder) -> None:
    """Train in this process."""
    from vidur_ext.training.train import run_training

    run_training(training_job(start, folder, start.load_checkpoint))


def training_job(
    start: Start,
    folder: RunFolder,
    load_checkpoint: str | None,
    stop_at_requests: int | None = None,
) -> Job:
    """Return the training of this run, or one chunk of it."""
    from vidur_ext.training.train import Job

    warm = load_checkpoint is None and begins_with_actor(start)
    return Job(
        start.config,
        run_dir=str(folder.path),
        pretrained_actor=folder.pretrained_actor if warm else None,
        load_checkpoint=load_checkpoint,
        stop_at_requests=stop_at_requests,
    )


def _set_torch_threads(config: TrainingConfig) -> None:
    import torch

    torch.set_num_threads(config.training.torch_threads)


def _report(step: Report) -> None:
    _LOG.info("warm start, %s", step.describe())
