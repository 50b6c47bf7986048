"""Notices when one replica takes all requests, and makes the policy explore again."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.config.learner_sections import CollapseGuardSection
from ppo_scheduler.state import StateDict


class CollapseGuard:
    """Watches the action shares of the last decisions and intervenes on collapse.

    It is asked before every update, about the rollout. An intervention begins when the window is
    full and one of two or more replicas has more than ``max_share`` of it, and lasts, in whole
    rollouts, ``intervention_steps`` decisions: the behavior temperature is raised, and the entropy
    coefficient, that of the update at hand included, is at least ``entropy_boost``.
    """

    def __init__(self, section: CollapseGuardSection, num_replicas: int) -> None:
        self.interventions = 0
        self._section = section
        self._num_replicas = num_replicas
        # Places without an action yet hold the number after the last replica's.
        self._ring = np.zeros(section.window, np.int64)
        self._counts = np.zeros(num_replicas + 1, np.int64)
        self._next = 0
        self._clear()
        self._remaining = 0

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each replica [R] in the last ``window`` decisions; 0 before the first."""
        return self._counts[:-1] / max(self._filled, 1)

    @property
    def intervening(self) -> bool:
        """Whether an intervention holds for the next decision."""
        return self._remaining > 0

    @property
    def temperature_factor(self) -> float:
        """Factor on the behavior temperature of the next decision."""
        return self._section.temperature_boost if self.intervening else 1.0

    def entropy_coef(self, scheduled: float) -> float:
        """Return the entropy coefficient of the next update."""
        return max(scheduled, self._section.entropy_boost) if self.intervening else scheduled

    def observe(self, actions: NDArray[np.integer]) -> str | None:
        """Take in the decisions of a rollout [N]; return what to log if something changed."""
        self._count(actions)
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

    def _count(self, actions: NDArray[np.integer]) -> None:
        """Let actions [n] take the places of the oldest ones."""
        newest = actions[-len(self._ring) :]
        places = (self._next + np.arange(len(newest))) % len(self._ring)
        self._next = (self._next + len(newest)) % len(self._ring)
        bins = len(self._counts)
        self._counts -= np.bincount(self._ring[places], minlength=bins)
        self._counts += np.bincount(newest, minlength=bins)
        self._ring[places] = newest

    def _clear(self) -> None:
        self._ring[:] = self._num_replicas
        self._next = 0
        self._counts[:] = 0
        self._counts[-1] = len(self._ring)

    @property
    def _filled(self) -> int:
        return int(self._counts[:-1].sum())

    def _largest_share(self) -> float:
        return float(self._counts[:-1].max()) / self._filled

    def _collapsed(self) -> bool:
        return (
            self._section.enabled
            and self._num_replicas >= 2
            and self._filled == len(self._ring)
            and self._largest_share() > self._section.max_share
        )

    def _intervene(self) -> str:
        section = self._section
        self.interventions += 1
        self._remaining = section.intervention_steps
        return (
            f"collapse guard: replica {int(self._counts[:-1].argmax())} took "
            f"{self._largest_share():.1%} of the last {section.window} decisions (allowed "
            f"{section.max_share:.1%}); intervention {self.interventions} for "
            f"{section.intervention_steps} decisions: temperature x{section.temperature_boost:g}, "
            f"entropy coefficient at least {section.entropy_boost:g}"
        )

    def state_dict(self) -> StateDict:
        oldest_first = np.roll(self._ring, -self._next)
        return {
            "num_replicas": self._num_replicas,
            "actions": torch.from_numpy(oldest_first[oldest_first < self._num_replicas]),
            "remaining": self._remaining,
            "interventions": self.interventions,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the window, or as much of it as a shorter one holds, and the intervention.

        The state must be of as many replicas as here.
        """
        assert state["num_replicas"] == self._num_replicas, state["num_replicas"]
        self._clear()
        self._count(state["actions"].numpy())
        self._remaining = state["remaining"] if self._section.enabled else 0
        self.interventions = state["interventions"]
