"""The main job: warm start, train, compare."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from ppo_scheduler.monitoring.run_log import run_log
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.start import Start, begins_with_actor, open_folder
from vidur_ext.training.train import Job, run_training
from vidur_ext.warmstart.behaviour_cloning import EpochReport
from vidur_ext.warmstart.cloning import clone_to_file, describe_accuracy, obtain_demonstrations
from vidur_ext.warmstart.external_model import adopt
from vidur_ext.workload.run_workloads import describe_workload

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
    torch.set_num_threads(config.training.torch_threads)
    with run_log(folder.log, config.monitoring.log_level, quiet=quiet):
        _LOG.info("run folder %s", folder.path)
        _LOG.info("workload: %s", workload)
        if begins_with_actor(start) and not start.warm_start_done:
            warm_start(config, folder, start.external, start.demonstrations)
        (train or train_in_one_go)(start, folder)
        if config.evaluation.enabled:
            # Plots take a while to import: a training does not wait for them.
            from vidur_ext.evaluation.judging import compare, policies_of

            compare(config, policies_of(folder), folder, quiet)
    return folder


def warm_start(
    config: TrainingConfig, folder: RunFolder, external: Path | None, demonstrations: Path | None
) -> None:
    """Make ``pretrained_actor.pt``: cloned, fine-tuned, or the external model as it is.

    Args:
        demonstrations: set to clone from; None collects new demonstrations.
    """
    if not config.warmstart.enabled:
        assert external is not None, "nothing to begin with"
        adopt(external, folder.pretrained_actor, config)
        return
    data = obtain_demonstrations(config, demonstrations, folder.demonstrations)
    actor, history = folder.pretrained_actor, folder.cloning
    clone_to_file(config, data, external, actor, history, _report_epoch)


def train_in_one_go(start: Start, folder: RunFolder) -> None:
    """Train in this process."""
    run_training(training_job(start, folder, start.load_checkpoint))


def training_job(
    start: Start,
    folder: RunFolder,
    load_checkpoint: str | None,
    stop_at_requests: int | None = None,
) -> Job:
    """Return the training of this run, or one chunk of it."""
    warm = load_checkpoint is None and begins_with_actor(start)
    return Job(
        start.config,
        run_dir=str(folder.path),
        pretrained_actor=folder.pretrained_actor if warm else None,
        load_checkpoint=load_checkpoint,
        stop_at_requests=stop_at_requests,
    )


def _report_epoch(epoch: EpochReport) -> None:
    _LOG.debug(
        "cloning epoch %d: loss %.4f, held-out %.4f (%s)",
        epoch.epoch, epoch.train_loss, epoch.holdout_loss, describe_accuracy(epoch),
    )  # fmt: skip
