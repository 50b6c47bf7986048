"""What a warm start leaves: a policy and how it was taught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ppo_scheduler.policy.routing_policy import RoutingPolicy


class Report(Protocol):
    """One step of the teaching: an epoch of imitation, or a round of learning from costs."""

    @property
    def number(self) -> int:
        """Counted from 0."""

    def scalars(self) -> dict[str, float]:
        """Return what is drawn of it, by name."""

    def describe(self) -> str:
        """Return what is logged of it."""

    def doubt(self) -> str | None:
        """Return why the policy is poor, None if it is not."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values."""


Watch = Callable[[Report], None]


@dataclass(frozen=True)
class TaughtPolicy:
    """The policy as it was after step ``best`` of ``history``."""

    policy: RoutingPolicy
    best: int
    history: Sequence[Report]

    @property
    def report(self) -> Report:
        """Of the step whose policy this is."""
        return self.history[self.best]
