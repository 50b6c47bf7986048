"""The behavior temperature: calmer under load, bolder when learning stands still."""

from __future__ import annotations

import math

from ppo_scheduler.config.learner_sections import TemperatureSection
from ppo_scheduler.state import StateDict


class StagnationDetector:
    """Compares the mean reward of each window of steps with that of the window before.

    Windows follow each other without overlap, so that two sums are all it keeps.
    """

    def __init__(self, window: int, threshold: float) -> None:
        self._window = window
        self._threshold = threshold
        self._sum = 0.0
        self._steps = 0
        self._older_mean: float | None = None

    def stagnates(self, reward: float) -> bool:
        """Take in one step; return true if it closes a window that brought no progress.

        Progress is a mean that rose by more than threshold * |older mean|.
        """
        self._sum += reward
        self._steps += 1
        if self._steps < self._window:
            return False
        mean, older = self._sum / self._steps, self._older_mean
        self._sum, self._steps, self._older_mean = 0.0, 0, mean
        return older is not None and mean - older <= self._threshold * abs(older)

    def state_dict(self) -> StateDict:
        return {"sum": self._sum, "steps": self._steps, "older_mean": self._older_mean}

    def load_state_dict(self, state: StateDict) -> None:
        self._sum = state["sum"]
        self._steps = state["steps"]
        self._older_mean = state["older_mean"]


class TemperatureController:
    """Sets the temperature of the action distribution, once per ``decide``.

    With pressures qp = (qps - target) / target and lp = max(0, (latency - target) / target)::

        T = base - qps_sensitivity * EMA(qp) - latency_sensitivity * EMA(lp)
            + balance_weight * (1 - balance),           clamped to [min, max]

    and, during a pulse, T + pulse_magnitude * base, clamped to 2 * max. Both averages begin at 0.
    """

    def __init__(self, section: TemperatureSection) -> None:
        self.current_temperature = section.base_temperature
        self.pulse_active = False
        self.pulses = 0
        self._section = section
        self._qps_ema = 0.0
        self._latency_ema = 0.0
        self._step_count = 0
        self._last_pulse_step: int | None = None
        self._pulse_remaining = 0
        self._stagnation = StagnationDetector(
            section.stagnation_window, section.stagnation_threshold
        )

    def update(self, qps: float, latency_s: float, balance: float, reward: float) -> float:
        """Return the temperature for the decision at hand.

        Args:
            qps: arrival rate [requests/s].
            latency_s: mean latency of completed requests [s]; NaN, as long as none has
                completed, leaves the latency pressure as it is.
            balance: 1 for even load on all replicas, 0 for all of it on one.
            reward: what the previous decision earned, before scaling.
        """
        if not self._section.enabled:
            return self.current_temperature
        assert math.isfinite(qps + balance + reward), (qps, balance, reward)
        self._step_count += 1
        self._follow_pressure(qps, latency_s)
        self._follow_reward(reward)
        self.current_temperature = self._temperature(balance)
        return self.current_temperature

    def _follow_pressure(self, qps: float, latency_s: float) -> None:
        section, alpha = self._section, self._section.ema_alpha
        pressure = (qps - section.target_qps) / section.target_qps
        self._qps_ema += alpha * (pressure - self._qps_ema)
        if not math.isnan(latency_s):
            pressure = max(0.0, (latency_s - section.target_latency_s) / section.target_latency_s)
            self._latency_ema += alpha * (pressure - self._latency_ema)

    def _follow_reward(self, reward: float) -> None:
        if self._stagnation.stagnates(reward) and self._section.pulse_magnitude > 0:
            self._pulse_remaining = self._section.pulse_steps
            self._last_pulse_step = self._step_count
            self.pulses += 1
        self.pulse_active = self._pulse_remaining > 0
        self._pulse_remaining = max(0, self._pulse_remaining - 1)

    def _temperature(self, balance: float) -> float:
        section = self._section
        wanted = (
            section.base_temperature
            - section.qps_sensitivity * self._qps_ema
            - section.latency_sensitivity * self._latency_ema
            + section.balance_weight * (1.0 - balance)
        )
        clamped = min(max(wanted, section.min_temperature), section.max_temperature)
        if not self.pulse_active:
            return clamped
        pulse = section.pulse_magnitude * section.base_temperature
        return min(clamped + pulse, 2.0 * section.max_temperature)

    def state_dict(self) -> StateDict:
        return {
            "current_temperature": self.current_temperature,
            "qps_ema": self._qps_ema,
            "latency_ema": self._latency_ema,
            "step_count": self._step_count,
            "last_pulse_step": self._last_pulse_step,
            "pulse_active": self.pulse_active,
            "pulse_remaining": self._pulse_remaining,
            "pulses": self.pulses,
            "stagnation": self._stagnation.state_dict(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the controller; a controller that is off keeps to its own base temperature."""
        if self._section.enabled:
            self.current_temperature = state["current_temperature"]
        self._qps_ema = state["qps_ema"]
        self._latency_ema = state["latency_ema"]
        self._step_count = state["step_count"]
        self._last_pulse_step = state["last_pulse_step"]
        self.pulse_active = state["pulse_active"]
        self._pulse_remaining = state["pulse_remaining"]
        self.pulses = state["pulses"]
        self._stagnation.load_state_dict(state["stagnation"])
