"""Names of what a policy sees and a reward is made of; ``features`` and ``reward`` fill them."""

from __future__ import annotations

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY, ObservationSchema

HISTORY = ("delta", "ema", "trend", "variance", "peak", "low")
"""What is known of a quantity's past.

delta: change since the last decision; ema: exponential moving average; trend: fast minus slow
average; variance: exponentially weighted; peak, low: extremes that decay towards the average.
"""

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

PLAIN = (
    "waiting",
    "running",
    "decoding",
    "pending_prefill_tokens",
    "context_tokens",
    "kv_blocks_total",
    "restarts",
    "oldest_wait_s",
    "mean_wait_s",
)
DERIVED = ("generated_per_request", "kv_fraction_after_prompt", "batch_fill")
COMPARED = (
    "outstanding",
    "pending_prefill",
    "context",
    "kv_fraction",
    "predicted_ttft_s",
    "predicted_latency_s",
)
_SLOT = ("age_s", "prompt_tokens", "processed_tokens", "remaining_tokens")
_ORACLE = ("remaining_output_tokens", "remaining_output_gap")
_CONTEXT = (
    "prompt_tokens",
    "log_prompt",
    "outstanding_per_replica",
    "waiting_per_replica",
    "min_pending_prefill_tokens",
    "min_predicted_latency_s",
    "qps",
    "latency_s",
    "ttft_s",
    "completions_per_arrival",
    "balance",
)
_CONTEXT_HISTORY = ("ema", "trend", "variance")


def observation_schema(section: ObservationSection) -> ObservationSchema:
    """Return the names of all columns under this config."""
    replica = [*PLAIN, *DERIVED, *COMPARED, *(f"{name}_gap" for name in COMPARED)]
    context = list(_CONTEXT)
    if section.output_length == "oracle":
        replica += _ORACLE
        context += ["output_tokens"]
    if section.history:
        replica += [f"outstanding_{name}" for name in HISTORY]
        context += [f"qps_{name}" for name in _CONTEXT_HISTORY]
    replica += [f"queue{slot}_{name}" for slot in range(section.queue_slots) for name in _SLOT]
    return ObservationSchema(
        replica=tuple(replica), context=tuple(context), telemetry=(*TELEMETRY, *COMPONENTS)
    )
