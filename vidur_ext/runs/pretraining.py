"""A warm start by itself: demonstrations, and a ``pretrained_actor.pt`` to train from."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, write_file
from ppo_scheduler.monitoring.run_log import run_log
from vidur_ext.config.loading import dump_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.processes import compute_with
from vidur_ext.run_folder import RunFolder
from vidur_ext.warmstart.taught_policy import Report, TaughtPolicy
from vidur_ext.warmstart.teaching import teach, teaching_curves
from vidur_ext.workload.run_workloads import describe_requests

_LOG = logging.getLogger("ppo")
PRETRAININGS = "pretrain"
"""Folder of these runs below the output root."""
CONFIG_FILE = "pretrain_config.json"
"""Not ``config.json``: that is how trainings are found, and this is none."""


@dataclass(frozen=True)
class Pretraining:
    """What is wanted; every file is checked already."""

    config: TrainingConfig
    workload: str
    """The config's workload in words: to tell it, its trace has been found."""
    demonstrations: Path | None = None
    """Set to learn from; None collects new demonstrations."""
    finetune: Path | None = None
    """Policy to begin with; None begins with random weights."""
    also: tuple[TrainingConfig, ...] = ()
    """The config on other clusters, for one policy that serves them all."""


def pretraining_folder(output_root: Path, output_dir: Path | None) -> RunFolder:
    """Create the folder of a pretraining.

    Raises:
        UserError: it is in use, or cannot be made.
    """
    if output_dir is None:
        return RunFolder.create(output_root, PRETRAININGS, datetime.now())
    way_out = "Choose another folder, or leave --output-dir out for a new one"
    with disk_errors(output_dir, "--output-dir cannot be used", way_out):
        used = os.path.lexists(output_dir) and any(output_dir.iterdir())
    if used:
        raise UserError(
            f"--output-dir {output_dir}: is not empty. {way_out}; to go on from a policy in it, "
            "name that with --finetune"
        )
    return RunFolder.at(output_dir)


def run_pretraining(wanted: Pretraining, folder: RunFolder, *, quiet: bool) -> TaughtPolicy:
    """Teach a policy; the folder has the policy, its history, curves, log and config.

    Raises:
        UserError: a set or policy cannot be used, or the disk refuses.
    """
    config = wanted.config
    with disk_errors(folder.path, "nothing can be written there", "Choose another --output-dir"):
        target = folder.path / CONFIG_FILE
        write_file(target, dump_config(config).encode())
    compute_with(config.training.torch_threads)
    with run_log(folder.path / "pretraining.log", config.monitoring.log_level, quiet=quiet):
        _LOG.info("pretraining folder %s", folder.path)
        _LOG.info("workload: %s", wanted.workload)
        for other in wanted.also:
            _LOG.info(
                "and also on %s: %s, L = %g",
                other.cluster.device_counts(),
                describe_requests(other.workload),
                other.lookahead.ttft_weight,
            )
        monitoring = config.monitoring
        table = folder.warm_start.with_suffix(".csv") if monitoring.csv else None
        events = folder.tensorboard if monitoring.tensorboard else None
        with teaching_curves(table, events) as record:

            def watch(step: Report) -> None:
                record(step)
                _LOG.info("%s", step.describe())

            taught = teach(
                config,
                folder,
                watch,
                demonstrations=wanted.demonstrations,
                initial=wanted.finetune,
                also=wanted.also,
            )
        if stopped_early(taught, config):
            _LOG.info(
                "stopped early: no better held-out loss for %d epochs", config.warmstart.patience
            )
    return taught


def stopped_early(taught: TaughtPolicy, config: TrainingConfig) -> bool:
    """Tell whether patience ended before the epochs did."""
    section = config.warmstart
    return section.method == "imitation" and len(taught.history) < section.epochs
