"""The reward of an interval between two decisions, with all its components."""

from __future__ import annotations

import math

from ppo_scheduler.config.learner_sections import RewardSection
from ppo_scheduler.control.curriculum import StageScales
from vidur_ext.env.snapshot import ClusterSnapshot, Interval

COMPONENTS = (
    "latency",
    "ttft",
    "slo",
    "throughput",
    "mean_latency",
    "imbalance",
    "threshold_penalty",
    "change",
)
"""Logged in every mode, whichever of them the reward is made of."""


class RewardFunction:
    """Turns intervals into rewards; keeps moving averages where a mode needs them.

    * latency: minus the time integral of requests in the system. Summed over an episode it is
      minus the sum of end-to-end latencies, exactly (Little's law without the limit).
    * ttft: minus the time integral of requests that wait for their first token.
    * slo: completions within both objectives minus completions outside.
    * instant: the score w_t * throughput - w_l * latency - w_i * imbalance - threshold penalty.
    * delta: change of that score since the previous decision.
    * hybrid: throughput and latency, absolute and against their moving averages, minus imbalance
      and a logistic penalty around the latency threshold.
    """

    def __init__(self, section: RewardSection) -> None:
        self._section = section
        self._scales = StageScales(0)
        self.reset()

    def reset(self) -> None:
        """Forget the past: a new episode begins."""
        self._mean_latency = 0.0
        self._throughput_ema = 0.0
        self._latency_ema = 0.0
        self._previous_score: float | None = None

    def set_scales(self, scales: StageScales) -> None:
        """Apply a curriculum stage's scales to threshold and penalty."""
        self._scales = scales

    def __call__(self, snapshot: ClusterSnapshot, interval: Interval) -> tuple[float, list[float]]:
        """Return the reward and its components, in the order of ``COMPONENTS``."""
        section = self._section
        completions = interval.completions
        if completions:
            self._mean_latency = sum(c.e2e_s for c in completions) / len(completions)
        in_time = sum(
            c.ttft_s <= section.slo_ttft_s and c.tbt_s <= section.slo_tbt_s for c in completions
        )
        throughput = section.throughput_weight * len(completions)
        latency = section.latency_weight * self._mean_latency
        imbalance = section.imbalance_weight * _variation(snapshot)
        score = throughput - latency - imbalance - self._step_penalty()
        change = 0.0 if self._previous_score is None else score - self._previous_score
        self._previous_score = score

        if section.mode == "hybrid":
            penalty = self._logistic_penalty()
            change = (throughput - self._throughput_ema) - (latency - self._latency_ema)
            alpha = section.ema_alpha
            self._throughput_ema += alpha * (throughput - self._throughput_ema)
            self._latency_ema += alpha * (latency - self._latency_ema)
        else:
            penalty = self._step_penalty()
        components = {
            "latency": -interval.request_seconds,
            "ttft": -interval.unanswered_seconds,
            "slo": float(2 * in_time - len(completions)),
            "throughput": throughput,
            "mean_latency": -latency,
            "imbalance": -imbalance,
            "threshold_penalty": -penalty,
            "change": change,
        }
        return self._total(components), [components[name] for name in COMPONENTS]

    def _total(self, components: dict[str, float]) -> float:
        mode = self._section.mode
        if mode in ("latency", "ttft", "slo"):
            return components[mode]
        if mode == "delta":
            return components["change"]
        score = ("throughput", "mean_latency", "imbalance", "threshold_penalty")
        total = sum(components[name] for name in score)
        return total + components["change"] if mode == "hybrid" else total

    def _threshold_s(self) -> float:
        return self._section.latency_threshold_s * self._scales.latency_threshold_scale

    def _penalty_size(self) -> float:
        return self._section.threshold_penalty * self._scales.penalty_scale

    def _step_penalty(self) -> float:
        return self._penalty_size() if self._mean_latency > self._threshold_s() else 0.0

    def _logistic_penalty(self) -> float:
        relative = self._mean_latency / self._threshold_s() - 1.0
        return self._penalty_size() / (1.0 + math.exp(-10.0 * min(relative, 50.0)))


def _variation(snapshot: ClusterSnapshot) -> float:
    """Return the coefficient of variation of outstanding requests over replicas."""
    # Plain numbers: for the few replicas of a cluster, array calls cost more than they save.
    outstanding = snapshot.outstanding.tolist()
    mean = sum(outstanding) / len(outstanding)
    if mean == 0.0:
        return 0.0
    variance = sum((load - mean) ** 2 for load in outstanding) / len(outstanding)
    return math.sqrt(variance) / mean
