"""Coefficients as functions of the global step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from ppo_scheduler.config.learner_sections import KLSection, OptimizationSection, PPOSection


def entropy_coefficient(section: PPOSection, step: int) -> float:
    """Return the weight of the entropy bonus at a global step.

    Linear from initial to final over ``entropy_decay_steps``, plus, while step is below
    ``entropy_warmup_steps``, ``entropy_warmup_coef * (1 - step / entropy_warmup_steps)``.
    """
    scheduled = _linear(
        section.entropy_coef_initial,
        section.entropy_coef_final,
        step / section.entropy_decay_steps,
    )
    if step >= section.entropy_warmup_steps:
        return scheduled
    return scheduled + section.entropy_warmup_coef * (1.0 - step / section.entropy_warmup_steps)


def kl_coefficient(section: KLSection, step: int) -> float:
    """Return the weight of KL(policy || reference) at a global step: linear, then constant."""
    return _linear(section.initial_coef, section.final_coef, step / section.decay_steps)


def learning_rate_factor(section: OptimizationSection, step: int, total_steps: int) -> float:
    """Return the factor on ``ppo_config.learning_rate`` at a global step of ``total_steps``.

    It rises linearly from 0 over ``lr_warmup_steps``. From there to ``total_steps`` it stays
    (constant), falls linearly, or falls by half a cosine (Loshchilov and Hutter 2017, equation 5,
    without restarts), to ``lr_final_fraction``, where it stays.
    """
    if step < section.lr_warmup_steps:
        return step / section.lr_warmup_steps
    span = max(total_steps - section.lr_warmup_steps, 1)
    progress = min((step - section.lr_warmup_steps) / span, 1.0)
    if section.lr_schedule == "constant":
        return 1.0
    if section.lr_schedule == "cosine":
        progress = 0.5 * (1.0 - math.cos(math.pi * progress))
    return _linear(1.0, section.lr_final_fraction, progress)


def _linear(start: float, end: float, progress: float) -> float:
    """Go from start to end while progress goes from 0 to 1, and stay at exactly end."""
    return end if progress >= 1.0 else start + (end - start) * progress
