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
from vidur_ext.config.training_config import TrainingConfig, uneven_interval
from vidur_ext.processes import compute_with
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.ownership import OwnedRun, leave_chunks, open_folder, owned_run
from vidur_ext.runs.start import Start, begins_with_actor, check_ready, fitting, has_ended
from vidur_ext.workload.run_workloads import describe_workload, doubt_about_rates

if TYPE_CHECKING:
    from vidur_ext.training.train import Job
    from vidur_ext.warmstart.taught_policy import Report

_LOG = logging.getLogger("ppo")

Trainer = Callable[[Start, OwnedRun], None]
"""Trains to the end of the budget; the folder holds what the training begins with."""


def run_pipeline(start: Start, *, quiet: bool, say: Callable[[str], None] = print) -> RunFolder:
    """Run the whole job, or what is left of it, as the owner of its run.

    Args:
        say: tells the operator something that belongs into no log.

    Raises:
        UserError: something cannot be used as asked; if that can be known before, nothing has been
            changed.
    """
    start = fitting(start)
    ended = has_ended(start)
    if not ended:
        check_ready(start.config, say)
    with owned_run(start) as owned:
        if ended:
            say_finished(start.config, owned.folder, say)
            judge_if_missing(start, owned, quiet=quiet, say=say)
        else:
            leave_chunks(owned.folder)
            carry_out(start, owned, train_in_one_go, quiet=quiet)
    return owned.folder


def say_finished(config: TrainingConfig, folder: RunFolder, say: Callable[[str], None]) -> None:
    """Say that nothing is left to train, and what can be done instead."""
    say(
        f"this training is finished: all {config.training.total_requests} requests are trained "
        f"already: {folder.path}\nGo on with a larger --total-requests and --resume latest, or "
        "begin a new training with --force-warmstart"
    )


def judge_if_missing(
    start: Start, owned: OwnedRun, *, quiet: bool, say: Callable[[str], None]
) -> None:
    """Compare what a finished training came to, unless that was done."""
    if start.config.evaluation.enabled and not owned.folder.comparison_json.exists():
        say("the comparison is missing:")
        carry_out(start, owned, None, quiet=quiet)


def carry_out(start: Start, owned: OwnedRun, train: Trainer | None, *, quiet: bool) -> None:
    """Warm-start if that is due, train, and judge.

    Args:
        train: None has nothing left to train.
    """
    config, folder = start.config, owned.folder
    if train is not None:
        open_folder(start, folder)
    with run_log(folder.log, config.monitoring.log_level, quiet=quiet):
        _LOG.info("run folder %s", folder.path)
        doubt = doubt_about_rates(config)
        level = logging.INFO if doubt is None else logging.WARNING
        _LOG.log(level, "workload: %s", describe_workload(config))
        uneven = uneven_interval(config)
        if train is not None and uneven is not None:
            _LOG.warning("%s", uneven)
        for line in start.notes:
            _LOG.info("%s", line)
        if start.left is not None:
            from vidur_ext.training.origin import log_fresh_start

            log_fresh_start(start.left)
        if train is not None:
            if begins_with_actor(start) and not start.warm_start_done:
                warm_start(config, folder, start.external, start.demonstrations)
            train(start, owned)
        if config.evaluation.enabled:
            from vidur_ext.evaluation.judging import held_out_of, judge, origin_of, policies_of

            compute_with(config.training.torch_threads)
            origin = {**origin_of(folder), **held_out_of(folder, config)}
            try:
                judge(config, policies_of(folder), folder, quiet, origin)
            except Interrupted as stop:
                raise stop.saying(
                    f"the training is saved: judge it with vidur-ppo compare --run {folder.path}"
                ) from None


def warm_start(
    config: TrainingConfig, folder: RunFolder, external: Path | None, demonstrations: Path | None
) -> None:
    """Make ``pretrained_actor.pt``: taught, fine-tuned, or the external model as it is.

    Args:
        demonstrations: set to learn from; None collects new demonstrations.
    """
    from vidur_ext.warmstart.external_model import adopt
    from vidur_ext.warmstart.teaching import teach

    compute_with(config.training.torch_threads)
    if not config.warmstart.enabled:
        assert external is not None, "nothing to begin with"
        adopt(external, folder.pretrained_actor, config)
        return
    teach(config, folder, _report, demonstrations=demonstrations, initial=external)


def train_in_one_go(start: Start, owned: OwnedRun) -> None:
    """Train in this process."""
    from vidur_ext.training.train import run_training

    run_training(training_job(start, owned, start.load_checkpoint))


def training_job(
    start: Start,
    owned: OwnedRun,
    load_checkpoint: str | None,
    stop_at_requests: int | None = None,
) -> Job:
    """Return the training of this run, or one chunk of it."""
    from vidur_ext.training.train import Job

    warm = load_checkpoint is None and begins_with_actor(start)
    return Job(
        start.config,
        run_dir=str(owned.folder.path),
        pretrained_actor=owned.folder.pretrained_actor if warm else None,
        load_checkpoint=load_checkpoint,
        stop_at_requests=stop_at_requests,
        owner=owned.owner,
    )


def _report(step: Report) -> None:
    _LOG.info("warm start, %s", step.describe())
