"""Finding a training in chunks that was begun before, and checking that it can go on.

The checkpoints say what is trained; the progress file says what was planned; ``config.json`` of
the run folder says with which settings. Where they contradict each other or the command line,
nothing is guessed: the error names every contradiction and the ways out.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ppo_scheduler.checkpoint.reading import find_newest
from ppo_scheduler.checkpoint.store import CheckpointInfo, CheckpointStore
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, move
from vidur_ext.config.loading import load_config
from vidur_ext.config.resume_rules import Effect, differences
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import EXTERNAL_RUNS, WARMSTART_RUNS, RunFolder
from vidur_ext.runs import chunk_record
from vidur_ext.runs.chunk_record import (
    DamagedProgress,
    Order,
    TrainingProgress,
    read_progress,
    write_progress,
)
from vidur_ext.runs.start import Start


def newest_of_run(config: TrainingConfig, folder: RunFolder) -> CheckpointInfo | None:
    """Return the newest good checkpoint of the checkpoint folder, if it is this run's."""
    newest = CheckpointStore(config.checkpointing).latest()
    return newest if newest is not None and belongs_to(newest, folder) else None


def belongs_to(info: CheckpointInfo, folder: RunFolder) -> bool:
    """Tell whether a run saved a checkpoint."""
    return os.path.realpath(info.manifest.run_dir) == os.path.realpath(folder.path)


def requests_done(info: CheckpointInfo) -> int:
    """Return how many requests of the stream are trained in a checkpoint."""
    return int(info.manifest.facts.get("requests_done", info.manifest.global_step))


_LOG = logging.getLogger("ppo")
_WAYS_OUT = (
    "Restore what differs; or go on from the newest checkpoint under the new settings with "
    "--resume latest (seed, observation and network cannot change); or begin a new training with "
    "--force-warmstart; or keep both with another --output-dir and checkpointing.checkpoint_dir"
)


@dataclass(frozen=True)
class Recovered:
    """A training in chunks that can go on."""

    progress: TrainingProgress
    start: Start


def find_chunked_run(config: TrainingConfig, output_dir: Path | None) -> RunFolder | None:
    """Return the folder of the training in chunks that was active last, None without one.

    Only runs that save to the same checkpoint folder count: others are other experiments.
    """
    if output_dir is not None:
        folder = RunFolder(output_dir)
        return folder if folder.progress.exists() else None
    root = Path(config.training.output_root)
    folders = {
        RunFolder(path.parent)
        for kind in (WARMSTART_RUNS, EXTERNAL_RUNS)
        for path in root.glob(f"{kind}/*/{RunFolder(Path()).progress.name}")
    }
    saved = CheckpointStore(config.checkpointing).checkpoints()
    if saved:
        folders.add(RunFolder(Path(saved[-1].manifest.run_dir)))
    here = [f for f in folders if f.progress.exists() and _saves_to(f, config)]
    return max(here, key=lambda folder: folder.progress.stat().st_mtime_ns, default=None)


def recover(folder: RunFolder, config: TrainingConfig, order: Order) -> Recovered:
    """Return how a training in chunks goes on.

    Raises:
        UserError: files, checkpoints and command line contradict each other.
    """
    saved = _saved(folder, config)
    progress = _progress(folder, config, order, saved.own)
    recorded = _recorded(folder, saved.own)
    settings = recorded.settings() if isinstance(recorded, TrainingConfig) else recorded
    problems = [*_other_wishes(progress, settings, config, order)]
    if progress.status != "completed":  # what is done needs no checkpoints any more
        problems += _lost_checkpoints(progress, saved, config)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(
            f"{folder.progress}: the training in chunks that was begun here cannot simply go on:\n"
            f"{listed}\n{_WAYS_OUT}"
        )
    if saved.own is not None and progress.status != "completed":
        done, checkpoint = requests_done(saved.own), str(saved.own.path)
        progress = chunk_record.trained(progress, done, checkpoint, _now())
    if isinstance(recorded, TrainingConfig):
        # How it begins was answered then; what the command line says now comes too late.
        config = config.model_copy(update={"warmstart": recorded.warmstart})
    external = progress.external_pretrain
    start = Start(
        config,
        load_checkpoint=_continued(progress, config, saved.own),
        run_dir=folder.path,
        external=None if external is None else Path(external),
        warm_start_done=folder.pretrained_actor.exists(),
    )
    return Recovered(progress, start)


@dataclass(frozen=True)
class _Saved:
    """What the checkpoint folder holds."""

    newest: CheckpointInfo | None
    """The newest good checkpoint, whoever saved it."""
    own: CheckpointInfo | None
    """The same, if this run saved it."""
    damaged: bool
    """There are newer ones, which are damaged."""


def _saved(folder: RunFolder, config: TrainingConfig) -> _Saved:
    newest, skipped = find_newest(Path(config.checkpointing.checkpoint_dir))
    for path, reason in skipped:
        _LOG.warning("skipped %s: %s", path, reason)
    own = newest if newest is not None and belongs_to(newest, folder) else None
    return _Saved(newest, own, bool(skipped))


def _continued(
    progress: TrainingProgress, config: TrainingConfig, own: CheckpointInfo | None
) -> str | None:
    """Return the checkpoint to go on from; a run that has not saved yet begins as it began."""
    if own is not None:
        return "latest"
    forked = config.checkpointing.fork_from_checkpoint is not None
    return None if forked else progress.latest_checkpoint


def _recorded(folder: RunFolder, own: CheckpointInfo | None) -> TrainingConfig | Mapping[str, Any]:
    """Return the config the run was begun with, or at least the settings of its checkpoint."""
    try:
        return load_config(folder.config)
    except UserError as error:
        if own is None:
            raise
        _LOG.warning("%s", error)
        _LOG.warning("the settings in %s count instead", own.path)
        return own.manifest.settings


def _progress(
    folder: RunFolder, config: TrainingConfig, order: Order, own: CheckpointInfo | None
) -> TrainingProgress:
    """Return what the progress file says, or what the checkpoints say if it is damaged."""
    try:
        return read_progress(folder.progress)
    except DamagedProgress as error:
        if own is None:
            raise UserError(
                f"{error}\nBut there is no checkpoint of this run to make it anew from: begin a "
                "new training with --force-warmstart"
            ) from None
        _LOG.warning("%s", error)
    damaged = folder.progress.with_suffix(".damaged.json")
    with disk_errors(damaged, "the damaged file cannot be kept there", "Move it away yourself"):
        move(folder.progress, damaged)
    done = requests_done(own)
    _LOG.warning("made anew from %s: %d requests; the old one is now %s", own.path, done, damaged)
    progress = chunk_record.planned(
        config,
        order.size(config),
        folder,
        config_file=order.config_file,
        external=order.external,
        done=done,
        checkpoint=str(own.path),
        now=_now(),
    )
    write_progress(folder.progress, progress)
    return progress


def _other_wishes(
    progress: TrainingProgress, recorded: Mapping[str, Any], config: TrainingConfig, order: Order
) -> Iterator[str]:
    """Yield what a training in chunks keeps and the command line wants otherwise."""
    planned = {
        "training.total_requests": progress.total_requests,
        "cluster.num_replicas": progress.num_replicas,
        "workload.qps": progress.qps,
    }
    for change in differences({**recorded, **planned}, config.settings()):
        kept = change.rule.effect in (Effect.REFUSED, Effect.NEXT_EPISODE)
        if kept or change.name in planned:
            then, now = json.dumps(change.saved), json.dumps(change.current)
            yield f"{change.name}: {then} then, {now} now"
    if order.chunk_size not in (None, progress.chunk_size):
        yield f"--chunk-size: {progress.chunk_size} then, {order.chunk_size} now"
    began_with = progress.external_pretrain
    if order.external is not None and str(order.external) != began_with:
        yield f"--external-pretrain: {began_with or 'none'} then, {order.external} now"


def _lost_checkpoints(
    progress: TrainingProgress, saved: _Saved, config: TrainingConfig
) -> Iterator[str]:
    """Yield where the checkpoints are not those of this run, or hold less than was trained."""
    own, newest, named = saved.own, saved.newest, progress.latest_checkpoint
    if own is None and newest is not None and _later(newest, progress):
        yield (
            f"another training has saved to {config.checkpointing.checkpoint_dir} since then: "
            f"{newest.path} of {newest.manifest.run_dir}"
        )
    elif own is None and progress.requests_done > 0 and not (named and Path(named).exists()):
        yield f"the checkpoint {named} with {progress.requests_done} requests is gone"
    elif own is not None and requests_done(own) < progress.requests_done and not saved.damaged:
        yield (
            f"{progress.requests_done} requests are trained by the progress file, "
            f"{requests_done(own)} by the newest checkpoint, {own.path}"
        )


def _later(newest: CheckpointInfo, progress: TrainingProgress) -> bool:
    saved, begun = newest.manifest.created_at, progress.start_time
    return datetime.fromisoformat(saved) > datetime.fromisoformat(begun)


def _saves_to(folder: RunFolder, config: TrainingConfig) -> bool:
    """Tell whether a run saves to the config's checkpoint folder; one that cannot say may."""
    try:
        document = json.loads(folder.config.read_bytes())
        there = document["checkpointing"]["checkpoint_dir"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return os.path.realpath(there) == os.path.realpath(config.checkpointing.checkpoint_dir)


def _now() -> datetime:
    return datetime.now(timezone.utc)
