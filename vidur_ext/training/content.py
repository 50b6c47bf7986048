"""Whether a training can go on from what a checkpoint holds, tried on one that is thrown away.

The sums of a checkpoint say that it is what was written. They say nothing about who wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ppo_scheduler.checkpoint.manifest import UnusableCheckpoint
from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
from ppo_scheduler.errors import IncompatibleState
from ppo_scheduler.monitoring.scalars import MetricsHistory, scalar_names
from ppo_scheduler.monitoring.tail_latency import TailLatencyTracker
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.policy.soundness import STATISTICS, sound_policy
from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.state import StateDict
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.components import COMPONENT_NAMES
from vidur_ext.routing.features import observation_schema
from vidur_ext.routing.output_lengths import new_lengths
from vidur_ext.training.session import Position
from vidur_ext.training.validation import Candidates


def check_content(loaded: LoadedCheckpoint, config: TrainingConfig) -> None:
    """Check that the tree of a checkpoint is a training's; whether of this one is not asked.

    Raises:
        UnusableCheckpoint: it lacks something, has something else in its place, a number that is
            not finite, or another step than the manifest says.
    """
    try:
        problem = _problem(loaded, config)
    except IncompatibleState:
        return  # another network or observation: what differs is said to whoever wants to go on
    except Exception as error:  # a stranger's tree may lack or be anything
        problem = f"{type(error).__name__}: {error}"
    if problem is not None:
        raise UnusableCheckpoint(loaded.path, f"holds no training that can go on ({problem})")


def _problem(loaded: LoadedCheckpoint, config: TrainingConfig) -> str | None:
    tree, manifest = loaded.tree, loaded.manifest
    counters = tree["learner"]["counters"]
    for name in ("ppo_step", "global_step"):
        if counters[name] != getattr(manifest, name):
            return f"its {name} is {counters[name]!r}, its manifest says {manifest.ppo_step}"
    if counters["updates"] < 0:
        return f"it made {counters['updates']} updates"
    policy = sound_policy(tree["learner"]["policy"])
    if counters["global_step"] and not all(policy[name]["count"] for name in STATISTICS):
        return "its policy has decided without having seen anything"
    _try_surroundings(tree, config)
    if (bad := next(_not_finite(tree["learner"], "learner"), None)) is not None:
        return f"{bad} is not finite"
    learner = _Silent(config)
    fresh = learner.state_dict()
    learner.load_state_dict(tree)
    parts = ["learner", "rollout"] if learner.took_rollout(tree["rollout"]) else ["learner"]
    fresh["rollout"]["pending"] = learner.pending_like()
    return next((bad for name in parts for bad in _foreign(tree[name], fresh[name], name)), None)


def _try_surroundings(tree: StateDict, config: TrainingConfig) -> None:
    """Load what is not the learner's; it fails as it would while resuming."""
    simulation, metrics = tree["simulation"], tree["metrics"]
    position = Position.from_state(simulation["position"])
    numbers = (position.episode, position.requests_before_episode, position.decisions_in_episode)
    if not all(type(number) is int and number >= 0 for number in (*numbers, simulation["seed"])):
        raise ValueError(f"a position of {numbers} and the seed {simulation['seed']!r}")
    if not isinstance(simulation["digest"], str | None) or not isinstance(
        simulation["engine"], str
    ):
        raise TypeError("the digest or the engine of the simulation is no text")
    lengths = simulation["episodes"]["lengths"]
    if lengths is not None and (
        lengths.shape != new_lengths().shape or not lengths.isfinite().all()
    ):
        raise ValueError("simulation.episodes.lengths is no table of output lengths")
    candidates = Candidates(config.lookahead.ttft_weight)
    candidates.load_state_dict(tree["validation"])
    for score in (*candidates.scores, *([candidates.best] if candidates.best else [])):
        candidates.objective_s(score)
    if (best := candidates.policy()) is not None:
        sound_policy(best)
    section = config.monitoring
    TailLatencyTracker(section.tail_window, section.tail_alert_s).load_state_dict(metrics["tail"])
    history = MetricsHistory(scalar_names(config.cluster.num_replicas, COMPONENT_NAMES))
    if metrics["history"] is not None:
        history.load_state_dict(metrics["history"])
    if not isinstance(metrics["wandb_run"], str | None):
        raise TypeError("metrics.wandb_run is no text")


class _Silent(Learner):
    """A learner that nobody hears of."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(
            config,
            observation_schema(config.observation),
            config.cluster.num_replicas,
            self,
            shards=Shards(config.parallel_training.num_envs),
        )

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        """Take a record; there is none."""

    def took_rollout(self, state: StateDict) -> bool:
        """Return whether the unfinished rollout of a state is gone on with; others are left.

        Raises:
            ValueError: it is, and it has actions that there are not.
        """
        if (state["num_envs"], state["num_replicas"]) != (self._shards.num_envs, self.num_replicas):
            return False
        if not self.rollout.fits(state["buffer"]):
            return False
        actions = self.action_log.together()
        if not ((actions >= 0) & (actions < self.num_replicas)).all():
            raise ValueError("rollout.action_log has replicas that there are not")
        return True

    def pending_like(self) -> StateDict:
        """Return a decision whose reward is not known yet."""
        columns = self.rollout.columns.items()
        return {name: torch.from_numpy(c[0]) for name, c in columns if name not in _EARNED}


_EARNED = ("reward", "raw_reward", "done", "telemetry")
"""Columns of a rollout that are known one decision later."""
_FREE = (
    "rollout.buffer.rows.",
    "rollout.action_log.",
    "learner.guard.actions",
    "learner.reward_scaler.returns",
)
"""What has as many entries as there were decisions or environments."""


def _not_finite(node: Any, where: str) -> Iterator[str]:
    """Yield the places of numbers that are not finite."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _not_finite(child, f"{where}.{name}")
    elif isinstance(node, torch.Tensor):
        if not node.isfinite().all():
            yield where
    elif isinstance(node, float) and not torch.tensor(node).isfinite():
        yield where


def _foreign(there: Any, here: Any, where: str) -> Iterator[str]:
    """Yield the places of values that are of another kind than in a new training.

    A part may be None, and what is None in a new training says nothing about kinds; nor do lists.
    """
    if isinstance(here, dict) and isinstance(there, dict):
        for name, value in here.items():
            yield from _foreign(there[name], value, f"{where}.{name}")
    elif isinstance(here, torch.Tensor):
        if not isinstance(there, torch.Tensor) or there.dtype is not here.dtype:
            yield f"{where} is no tensor of {here.dtype}"
        elif there.ndim != here.ndim or (there.shape != here.shape and not where.startswith(_FREE)):
            yield f"{where} is of shape {list(there.shape)}, not {list(here.shape)}"
    elif isinstance(here, dict):
        if there is not None:
            yield f"{where} is no dict"
    elif isinstance(here, bool | int | float | str):
        kinds = (int, float) if type(here) is float else (type(here),)
        if type(there) not in kinds:
            yield f"{where} is no {type(here).__name__}"
