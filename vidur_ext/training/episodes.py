"""What a training asks of whatever simulates it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.control.curriculum import StageScales
from vidur_ext.env.episode import EpisodeEnd
from vidur_ext.workload.request_table import RequestTable


@dataclass(frozen=True)
class EpisodePlan:
    """One episode in each of B environments.

    tables: the requests, equally many in each environment. scales: the curriculum's stage.
    previous_end: how the episodes before ended; None at the beginning. recorded: actions [B, t]
    that were taken in these episodes already. The learner's state contains those decisions, so
    they are simulated again without it, and what completed then has already been counted.
    """

    tables: Sequence[RequestTable]
    scales: StageScales
    previous_end: EpisodeEnd | None
    recorded: NDArray[np.int64]


class Observer(Protocol):
    """Who is told what happens while an episode runs."""

    def before_change(self) -> None:
        """Called before anything changes that a checkpoint holds."""

    def on_completions(self, latencies: NDArray[np.float64]) -> None:
        """Called with completed requests [n, 2]: times end to end and to first token [s]."""

    def on_replayed(self) -> None:
        """Called when the last recorded decision is seen again, before it is followed."""


class Episodes(Protocol):
    """Runs episodes with the learner in the router's place."""

    @property
    def num_envs(self) -> int:
        """B, the decisions that are made at once."""

    def run(self, plan: EpisodePlan) -> EpisodeEnd:
        """Run an episode to its end."""

    def digest(self) -> str | None:
        """Return a digest of all that was seen in the running episode; None outside of one.

        Equal digests, equal simulations. Inside ``Learner.decide`` the decision at hand is in it.
        """
