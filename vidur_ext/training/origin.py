"""What a training goes on from: which checkpoint, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppo_scheduler.checkpoint.store import CheckpointStore, LoadedCheckpoint
from ppo_scheduler.config.resume_rules import Effect, differences
from ppo_scheduler.config.run_sections import CheckpointingSection
from ppo_scheduler.config.training_config import LearnerConfig
from ppo_scheduler.errors import IncompatibleState
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.env.schema import observation_schema
from vidur_ext.training.settings import settings_of


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
