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
from vidur_ext.run_folder import EXTERNAL_RUNS, WARMSTART_RUNS, RunFolder, home_of
from vidur_ext.runs import chunk_record
from vidur_ext.runs.chunk_record import (
    DamagedProgress,
    Order,
    TrainingProgress,
    read_progress,
    write_progress,
)
from vidur_ext.runs.resume_choice import requests_done
from vidur_ext.runs.start import Start, has_ended
from vidur_ext.training.inputs import CONTENTS, settings_of


def newest_of_run(config: TrainingConfig, folder: RunFolder) -> CheckpointInfo | None:
    """Return the newest good checkpoint of the checkpoint folder, if it is this run's."""
    newest = CheckpointStore(config.checkpointing).latest()
    return newest if newest is not None and folder.saved(newest.manifest) else None


_LOG = logging.getLogger("ppo")
_WAYS_OUT = (
    "Restore what differs; or go on from the newest checkpoint under the new settings with "
    "--resume latest (seed, observation and network cannot change); or begin a new training with "
    "--force-warmstart; or keep both with another --output-dir and checkpointing.checkpoint_dir. "
    "Checkpoints that were moved aside are listed by vidur-ppo checkpoints list --all; --resume "
    "PATH --chunk-mode goes on from one of them"
)


@dataclass(frozen=True)
class Recovered:
    """A training in chunks that can go on."""

    progress: TrainingProgress
    start: Start


def find_chunked_run(config: TrainingConfig, output_dir: Path | None) -> RunFolder | None:
    """Return the folder of the training in chunks that a new start goes on with, None without one.

    Only runs that save to the same checkpoint folder count: others are other experiments. What has
    saved there last is the run to go on with, unless another one began behind that very checkpoint
    and has not saved yet. Clocks decide only among runs that nothing is saved of.
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
    here = [one for one in folders if one.is_below(root) and _saves_to(one, config)]
    saved = CheckpointStore(config.checkpointing).checkpoints()
    if saved:
        newest = saved[-1].manifest
        saver = home_of(newest, root)
        behind = [f for f in here if f != saver and _replaces(f) == newest.sha256]
        if behind:
            here = behind
        elif saver is not None and saver.progress.exists():
            return saver
    return max(here, key=_begun_at, default=None)


def _replaces(folder: RunFolder) -> str | None:
    progress = _readable(folder)
    return None if progress is None else progress.replaces


def _begun_at(folder: RunFolder) -> datetime:
    progress = _readable(folder)
    if progress is None:
        return datetime.min.replace(tzinfo=timezone.utc)
    return datetime.fromisoformat(progress.start_time)


def _readable(folder: RunFolder) -> TrainingProgress | None:
    """Return the progress of a run, None if it is damaged: that is said when the run goes on."""
    try:
        return read_progress(folder.progress)
    except UserError:
        return None


def recover(folder: RunFolder, config: TrainingConfig, order: Order) -> Recovered:
    """Return how a training in chunks goes on; a damaged record of it is made anew and kept.

    Raises:
        UserError: files, checkpoints and command line contradict each other; nothing is changed.
    """
    saved = _saved(folder, config)
    read = _progress(folder, saved.own)
    progress = read or _made_anew(folder, config, order, saved.own)
    recorded = _recorded(folder, saved.own)
    settings = recorded.settings() if isinstance(recorded, TrainingConfig) else recorded
    problems = [*_other_wishes(progress, settings, config, order)]
    if saved.own is not None and not problems:
        problems += _other_contents(saved.own, config)
    if progress.run_id != folder.identify():
        problems.append(f"the plan is that of another run, {progress.run_id}")
    if progress.status != "completed":  # what is done needs no checkpoints any more
        problems += _lost_checkpoints(progress, saved, config)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(
            f"{folder.progress}: the training in chunks that was begun here cannot simply go on:\n"
            f"{listed}\n{_WAYS_OUT}"
        )
    if read is None:
        _replace_damaged(folder, progress)
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
        origin=saved.own,
    )
    if progress.status != "completed" and has_ended(start):  # only the record does not say so
        progress = chunk_record.completed(
            progress, progress.total_chunks, str(progress.latest_checkpoint), _now()
        )
        write_progress(folder.progress, progress)
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
    own = newest if newest is not None and folder.saved(newest.manifest) else None
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


def _progress(folder: RunFolder, own: CheckpointInfo | None) -> TrainingProgress | None:
    """Return what the progress file says, None if it is damaged and the checkpoints say enough."""
    try:
        return read_progress(folder.progress)
    except DamagedProgress as error:
        if own is None:
            raise UserError(
                f"{error}\nBut there is no checkpoint of this run to make it anew from: begin a "
                "new training with --force-warmstart"
            ) from None
        _LOG.warning("%s", error)
        return None


def _made_anew(
    folder: RunFolder, config: TrainingConfig, order: Order, own: CheckpointInfo | None
) -> TrainingProgress:
    """Return the plan that the newest checkpoint is on."""
    assert own is not None, "a damaged record without a checkpoint was refused"
    return chunk_record.planned(
        config,
        order.size(config),
        folder,
        run_id=folder.identify(),
        config_file=order.config_file,
        external=order.external,
        done=requests_done(own),
        checkpoint=str(own.path),
        replaces=None,
        now=_now(),
    )


def _replace_damaged(folder: RunFolder, progress: TrainingProgress) -> None:
    damaged = folder.progress.with_suffix(".damaged.json")
    with disk_errors(damaged, "the damaged file cannot be kept there", "Move it away yourself"):
        move(folder.progress, damaged)
    write_progress(folder.progress, progress)
    _LOG.warning(
        "made anew from %s: %d requests; the old one is now %s",
        progress.latest_checkpoint, progress.requests_done, damaged,
    )  # fmt: skip


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


def _other_contents(own: CheckpointInfo, config: TrainingConfig) -> list[str]:
    """Return which files hold something else than when the run last saved."""
    changed = differences(own.manifest.settings, settings_of(config))
    return [f"{change}" for change in changed if change.name in CONTENTS]


def _lost_checkpoints(
    progress: TrainingProgress, saved: _Saved, config: TrainingConfig
) -> Iterator[str]:
    """Yield where the checkpoints are not those of this run, or hold less than was trained."""
    own, newest, named = saved.own, saved.newest, progress.latest_checkpoint
    if own is None and newest is not None and newest.manifest.sha256 != progress.replaces:
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
