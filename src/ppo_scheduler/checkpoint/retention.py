"""Which checkpoints stay: a pure decision over steps and validation scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ppo_scheduler.checkpoint.names import CheckpointName
from ppo_scheduler.config.run_sections import CheckpointingSection

Scores = Mapping[CheckpointName, float | None]
"""Validation score of each complete checkpoint, greater is better; None without one."""


@dataclass(frozen=True)
class Retention:
    """The newest checkpoint always stays: it is what a resume continues."""

    strategy: Literal["last_n", "top_k_val"]
    keep: int | None
    """How many stay besides the permanent ones; None is all."""
    keep_every: int | None = None
    """Steps that are multiples of it are permanent."""

    @classmethod
    def of(cls, section: CheckpointingSection) -> Retention:
        """Return what the config asks for."""
        keep = section.max_checkpoints if section.incremental_checkpoints else 1
        return cls(section.checkpoint_strategy, keep, section.keep_every)

    @property
    def needs_scores(self) -> bool:
        return self.strategy == "top_k_val" and self.keep is not None

    def outdated(self, scores: Scores) -> list[CheckpointName]:
        """Return what to delete, oldest first.

        A superseded checkpoint goes as soon as the one that replaced it is there.
        """
        names = sorted({name.step: name for name in sorted(scores)}.values())
        kept = set(names) if self.keep is None else self._chosen(names, scores, self.keep)
        if self.keep_every is not None:
            kept.update(name for name in names if name.step % self.keep_every == 0)
        return sorted(set(scores) - kept)

    def _chosen(
        self, names: list[CheckpointName], scores: Scores, keep: int
    ) -> set[CheckpointName]:
        if self.strategy == "last_n":
            return set(names[-keep:])
        scored = [(score, name) for name in names if (score := scores[name]) is not None]
        best = [name for _, name in sorted(scored)[-keep:]]  # of equal scores the later
        return {*best, *names[-1:]}
