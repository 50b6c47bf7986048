"""What may change between a checkpoint and the training that continues it: one table.

The first rule whose pattern fits a key counts. Keys without a rule of their own are settings of the
learning that count from the resume on: stage after stage of a training may have its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any


class Effect(Enum):
    """What a changed key means for a resume."""

    NONE = "learning stays the same"
    FROM_NOW_ON = "counts from here on"
    NEXT_EPISODE = "the unfinished episode is left, training goes on with the next request"
    REFUSED = "cannot be changed"


@dataclass(frozen=True)
class Rule:
    """The effect of changing the keys that fit a pattern, and why."""

    pattern: str
    effect: Effect
    why: str


RULES = (
    Rule("training.seed", Effect.REFUSED, "request stream and random numbers follow from it"),
    Rule("observation.clip", Effect.REFUSED, "it is part of the policy"),
    Rule("observation.history_alpha", Effect.FROM_NOW_ON, "the policy sees other averages"),
    Rule("observation.signal_delay_s", Effect.NEXT_EPISODE, "the router sees another moment"),
    Rule("observation.kv_event_delay_s", Effect.NEXT_EPISODE, "the router knows another moment"),
    Rule("observation.prefix_index_blocks", Effect.NEXT_EPISODE, "the router remembers others"),
    Rule("observation.*", Effect.REFUSED, "the network was built for these features"),
    Rule("actor_critic_architecture.orthogonal_init", Effect.NONE, "only the start depends on it"),
    Rule("actor_critic_architecture.*", Effect.REFUSED, "the saved weights have another shape"),
    Rule("training.exp_name", Effect.NONE, "it is a name"),
    Rule("training.output_root", Effect.NONE, "it is a place"),
    Rule("training.torch_threads", Effect.NONE, "only the last bits of sums depend on it"),
    Rule("training.kernel", Effect.NONE, "only the last bits of sums depend on it"),
    Rule("training.episode_requests", Effect.NEXT_EPISODE, "its window of requests is another"),
    Rule("training.total_requests", Effect.FROM_NOW_ON, "schedules follow the new budget"),
    Rule("warmstart.*", Effect.NONE, "the warm start lies before the checkpoint"),
    Rule("terminal_value.*", Effect.NONE, "it was learned before the checkpoint"),
    Rule("evaluation.*", Effect.NONE, "it concerns the comparison after the training"),
    Rule("routers.*", Effect.NONE, "it concerns what the policy is compared with"),
    Rule("checkpointing.*", Effect.NONE, "it concerns saving only"),
    Rule("monitoring.*", Effect.NONE, "it concerns watching only"),
    Rule("curriculum_learning.*", Effect.NEXT_EPISODE, "it scales the request stream"),
    Rule("parallel_training.num_envs", Effect.NEXT_EPISODE, "episodes run side by side"),
    Rule("parallel_training.num_shards", Effect.FROM_NOW_ON, "gradients are split by them"),
    Rule("parallel_training.*", Effect.NONE, "it concerns processes around the training"),
    Rule("cluster.*", Effect.NEXT_EPISODE, "the simulated cluster is another"),
    Rule("simulation.*", Effect.NEXT_EPISODE, "the simulated times are others"),
    Rule("workload.*", Effect.NEXT_EPISODE, "the request stream is another"),
    Rule("inputs.*", Effect.NEXT_EPISODE, "a file has another content under its name"),
    Rule("*", Effect.FROM_NOW_ON, "it is a setting of the learning"),
)


@dataclass(frozen=True)
class Difference:
    """A key whose value differs between a checkpoint and the present settings."""

    name: str
    saved: Any
    current: Any
    rule: Rule

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.saved!r} in the checkpoint, {self.current!r} now "
            f"({self.rule.effect.value}: {self.rule.why})"
        )


def rule_of(name: str) -> Rule:
    """Return the rule of a key, given by its dotted name."""
    return next(rule for rule in RULES if fnmatchcase(name, rule.pattern))


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """Return what differs among the keys that both know, in the order of ``current``."""
    return [
        Difference(name, saved[name], value, rule_of(name))
        for name, value in current.items()
        if name in saved and saved[name] != value
    ]
