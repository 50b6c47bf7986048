"""A minibatch size that follows how far updates carry the policy."""

from __future__ import annotations

from ppo_scheduler.config.learner_sections import OptimizationSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.state import StateDict


class AdaptiveMinibatch:
    """Doubles the minibatch after a KL early stop and halves it after a calm update.

    Larger minibatches make fewer and less noisy steps per epoch, so the policy moves less; a calm
    update, which ended with less than half the target KL, has room for more.
    """

    def __init__(self, section: OptimizationSection, initial: int) -> None:
        """Begin with ``initial`` decisions per minibatch.

        Raises:
            UserError: the size is to adapt, but begins outside its bounds.
        """
        low, high = section.min_minibatch_size, section.max_minibatch_size
        if section.adaptive_minibatch and not low <= initial <= high:
            raise UserError(
                f"ppo_config.minibatch_size={initial} is outside the bounds of the adaptive "
                f"minibatch, {low} to {high}: change it, or "
                "advanced_optimization.min_minibatch_size or .max_minibatch_size"
            )
        self.size = initial
        self._section = section

    def after_update(self, stopped_early: bool, approx_kl: float, target_kl: float | None) -> None:
        """Set the size for the next update from how this one ended."""
        if not self._section.adaptive_minibatch:
            return
        if stopped_early:
            self.size = self._within_bounds(self.size * 2)
        elif target_kl is not None and approx_kl < target_kl / 2:
            self.size = self._within_bounds(self.size // 2)

    def _within_bounds(self, size: int) -> int:
        low, high = self._section.min_minibatch_size, self._section.max_minibatch_size
        return min(max(size, low), high)

    def state_dict(self) -> StateDict:
        return {"size": self.size}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the size within today's bounds; one that does not adapt is the config's."""
        if self._section.adaptive_minibatch:
            self.size = self._within_bounds(state["size"])
