"""When a training saves, besides its end and signals."""

from __future__ import annotations

from collections.abc import Callable

from ppo_scheduler.config.run_sections import CheckpointingSection


class SaveSchedule:
    """Asked after every decision; wall-clock time is taken from the given clock alone."""

    def __init__(self, section: CheckpointingSection, clock: Callable[[], float]) -> None:
        self._section = section
        self._clock = clock
        self._last_save = clock()
        self._updates = 0

    def start(self, updates: int) -> None:
        """Begin to count, behind that many updates of the policy."""
        self._last_save = self._clock()
        self._updates = updates

    def due(self, ppo_step: int, updates: int, asked: bool) -> str | None:
        """Return why to save now, None to go on.

        Args:
            updates: of the policy so far, over all resumes.
            asked: somebody wants a save now.
        """
        reason = self._reason(ppo_step, updates, asked)
        if reason is not None:
            self._last_save = self._clock()
        return reason

    def _reason(self, ppo_step: int, updates: int, asked: bool) -> str | None:
        section = self._section
        if self._validation_due(updates):
            return "validation"
        if asked:
            return "manual"
        if ppo_step % section.checkpoint_interval == 0:
            return "interval"
        seconds = section.checkpoint_interval_s
        if seconds is not None and self._clock() - self._last_save >= seconds:
            return "time"
        return None

    def _validation_due(self, updates: int) -> bool:
        """Once, at the first decision behind every ``validation_freq``-th update."""
        frequency = self._section.validation_freq
        updated = updates != self._updates
        self._updates = updates
        return updated and frequency is not None and updates % frequency == 0
