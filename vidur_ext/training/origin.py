"""The checkpoint a training goes on from: found, and found to fit."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.config.resume_rules import Effect, differences
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.content import check_content

_LOG = logging.getLogger("ppo")


@dataclass(frozen=True)
class Origin:
    """A checkpoint to go on from, as the same run or as a fork: a new run with its own folders."""

    loaded: LoadedCheckpoint
    fork: bool


def find_origin(
    store: CheckpointStore | None, config: TrainingConfig, named: str | None
) -> Origin | None:
    """Return what the training goes on from; None is the beginning.

    Args:
        store: the folder this training saves to; None reads only.
        named: a path, or ``latest``; it has precedence over the config's keys.

    Raises:
        UserError: there is no such checkpoint, it is bad, or a fork would save beside it.
    """
    section = config.checkpointing
    check = partial(check_content, config=config)
    configured = (section.resume_from_checkpoint or None, section.resume_step)
    source = next((s for s in (named, *configured) if s is not None), None)
    reader = store or CheckpointStore(section)
    if source is not None:
        return Origin(reader.load(source, check), fork=False)
    if section.fork_from_checkpoint is not None:
        loaded = reader.load(section.fork_from_checkpoint, check)
        _refuse_to_save_beside(loaded.path, section)
        return Origin(loaded, fork=True)
    return None


def _refuse_to_save_beside(original: Path, section: CheckpointingSection) -> None:
    """Saving rotates and moves what is in the folder, and a fork leaves its original alone."""
    here = Path(os.path.realpath(section.checkpoint_dir))
    if section.enable_checkpoints and here in Path(os.path.realpath(original)).parents:
        raise UserError(
            f"checkpointing.fork_from_checkpoint {original}: the fork would save into the folder "
            f"of its original, {section.checkpoint_dir}, and move what is there aside: give it "
            "another checkpointing.checkpoint_dir"
        )


def unfit(origin: Origin, config: TrainingConfig) -> str | None:
    """Return why a checkpoint cannot be continued by this training; None if it can.

    Raises:
        UserError: it cannot, and ``checkpointing.on_incompatible`` is "abort".
    """
    problems = _problems(origin.loaded, config)
    if not problems:
        return None
    listed = "\n".join(f"  {problem}" for problem in problems)
    text = f"{origin.loaded.path}: does not fit this training:\n{listed}"
    if config.checkpointing.on_incompatible == "abort":
        raise UserError(
            f"{text}\nRestore these settings, name another checkpoint, start afresh with "
            '--resume never, or set checkpointing.on_incompatible to "fresh"'
        )
    return text


def log_fresh_start(problem: str) -> None:
    """Say that a checkpoint is not continued, and why."""
    _LOG.warning("%s", problem)
    _LOG.warning("[PPO:checkpoint] Continuing with fresh training state")


def _problems(loaded: LoadedCheckpoint, config: TrainingConfig) -> list[str]:
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
