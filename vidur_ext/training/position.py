"""Where in the request stream a training is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ppo_scheduler.state import StateDict
from vidur_ext.env.episode import EpisodeEnd


@dataclass
class Position:
    """Episodes and requests behind us, and how the last episode ended."""

    episode: int = 0
    requests_before_episode: int = 0
    decisions_in_episode: int = 0
    previous_end: EpisodeEnd | None = None

    @property
    def requests_done(self) -> int:
        """Requests routed so far, over all resumes."""
        return self.requests_before_episode + self.decisions_in_episode

    def behind_unfinished_episode(self) -> Position:
        """Return the position of the next request, as the first one of an episode."""
        return Position(self.episode + 1, self.requests_done)

    def state_dict(self) -> StateDict:
        end = self.previous_end
        return {
            "episode": self.episode,
            "requests_before_episode": self.requests_before_episode,
            "decisions_in_episode": self.decisions_in_episode,
            "previous_end": None
            if end is None
            else {
                "reward": torch.from_numpy(end.reward),
                "components": torch.from_numpy(end.components),
            },
        }

    @classmethod
    def from_state(cls, state: StateDict) -> Position:
        end = state["previous_end"]
        return cls(
            state["episode"],
            state["requests_before_episode"],
            state["decisions_in_episode"],
            None if end is None else EpisodeEnd(end["reward"].numpy(), end["components"].numpy()),
        )
