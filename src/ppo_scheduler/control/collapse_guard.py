"""Notices when one replica takes all requests, and makes the policy explore again."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.config.learner_sections import CollapseGuardSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.state import StateDict


class CollapseGuard:
    """Watches the action shares of the last decisions and intervenes on collapse.

    An intervention begins when the window is full and one of two or more replicas has more than
    ``max_share`` of it, and lasts ``intervention_steps`` decisions: the behaviour temperature is
    raised and the entropy coefficient is at least ``entropy_boost``. Every intervention reaches
    at least one update, also where a rollout spans more decisions than an intervention.
    """

    def __init__(self, section: CollapseGuardSection, num_replicas: int) -> None:
        self.interventions = 0
        self._section = section
        self._actions: deque[int] = deque()
        self._counts = [0] * num_replicas
        self._remaining = 0
        self._update_owed = False

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each replica [R] in the last ``window`` decisions; 0 before the first."""
        return np.array(self._counts, dtype=np.float64) / max(len(self._actions), 1)

    @property
    def intervening(self) -> bool:
        """Whether an intervention holds for the next decision."""
        return self._remaining > 0

    @property
    def temperature_factor(self) -> float:
        """Factor on the behaviour temperature of the next decision."""
        return self._section.temperature_boost if self.intervening else 1.0

    def entropy_coef(self, scheduled: float) -> float:
        """Return the entropy coefficient of an update; to be called once for each."""
        boosted = self.intervening or self._update_owed
        self._update_owed = False
        return max(scheduled, self._section.entropy_boost) if boosted else scheduled

    def observe(self, actions: NDArray[np.int64]) -> str | None:
        """Take in the decisions of one step [B]; return what to log if something changed."""
        for action in actions.tolist():
            self._count(action)
        ended = self.intervening and self._remaining <= len(actions)
        self._remaining = max(0, self._remaining - len(actions))
        if not self.intervening and self._collapsed():
            return self._intervene()
        if ended:
            return (
                f"collapse guard: intervention {self.interventions} ended; the largest share is "
                f"now {self._largest_share():.1%}"
            )
        return None

    def _count(self, action: int) -> None:
        self._actions.append(action)
        self._counts[action] += 1
        if len(self._actions) > self._section.window:
            self._counts[self._actions.popleft()] -= 1

    def _largest_share(self) -> float:
        return max(self._counts) / len(self._actions)

    def _collapsed(self) -> bool:
        return (
            self._section.enabled
            and len(self._counts) >= 2
            and len(self._actions) == self._section.window
            and self._largest_share() > self._section.max_share
        )

    def _intervene(self) -> str:
        section = self._section
        self.interventions += 1
        self._remaining = section.intervention_steps
        self._update_owed = True
        return (
            f"collapse guard: replica {self._counts.index(max(self._counts))} took "
            f"{self._largest_share():.1%} of the last {section.window} decisions (allowed "
            f"{section.max_share:.1%}); intervention {self.interventions} for "
            f"{section.intervention_steps} decisions: temperature x{section.temperature_boost:g}, "
            f"entropy coefficient at least {section.entropy_boost:g}"
        )

    def state_dict(self) -> StateDict:
        return {
            "num_replicas": len(self._counts),
            "actions": torch.tensor(list(self._actions), dtype=torch.int64),
            "remaining": self._remaining,
            "update_owed": self._update_owed,
            "interventions": self.interventions,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the window, or as much of it as a shorter one holds, and the intervention.

        Raises:
            UserError: the state was saved with another number of replicas.
        """
        if state["num_replicas"] != len(self._counts):
            raise UserError(
                f"the saved action shares are of {state['num_replicas']} replicas, this run has "
                f"{len(self._counts)}: resume with cluster.num_replicas={state['num_replicas']}, "
                "or start a new training from the saved policy"
            )
        self._actions.clear()
        self._counts = [0] * len(self._counts)
        for action in state["actions"].tolist():
            self._count(action)
        self._remaining = state["remaining"] if self._section.enabled else 0
        self._update_owed = state["update_owed"] and self._section.enabled
        self.interventions = state["interventions"]
