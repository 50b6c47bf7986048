"""The one observation builder: for demonstrations, training and evaluation alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY, Observation, ObservationSchema
from vidur_ext.env.history import HISTORY, MovingStatistics
from vidur_ext.env.latency_estimator import LatencyEstimator
from vidur_ext.env.reward import COMPONENTS
from vidur_ext.env.snapshot import ROWS, ArrivingRequest, ClusterSnapshot, Interval

_PLAIN = (
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
_DERIVED = ("generated_per_request", "kv_fraction_after_prompt", "batch_fill")
_COMPARED = (
    "outstanding",
    "pending_prefill",
    "context",
    "kv_fraction",
    "predicted_ttft_s",
    "predicted_latency_s",
)
_PLAIN_ROWS = [ROWS.index(name) for name in _PLAIN]
_PENDING, _LATENCY = _COMPARED.index("pending_prefill"), _COMPARED.index("predicted_latency_s")
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
_RECENT = 0.05


def observation_schema(section: ObservationSection) -> ObservationSchema:
    """Return the names of all columns under this config."""
    replica = [*_PLAIN, *_DERIVED, *_COMPARED, *(f"{name}_gap" for name in _COMPARED)]
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


class ObservationBuilder:
    """Builds observations of one environment (B = 1) and keeps its history.

    A "gap" is the distance to the best replica: routing is a choice among replicas, and gaps stay
    sharp at every load level.
    """

    def __init__(
        self,
        section: ObservationSection,
        num_replicas: int,
        block_size: int,
        estimator: LatencyEstimator,
    ) -> None:
        self._section = section
        self._block_size = block_size
        self._estimator = estimator
        self.schema = observation_schema(section)
        self._outstanding = MovingStatistics(num_replicas, section.history_alpha)
        self._qps_history = MovingStatistics(1, section.history_alpha)
        self.reset()

    def reset(self) -> None:
        """Forget the past: a new episode begins."""
        self._outstanding.reset()
        self._qps_history.reset()
        self._gap_s = 0.0
        self._latency_s = float("nan")
        self._ttft_s = float("nan")
        self._completions = 0.0

    def build(
        self,
        snapshot: ClusterSnapshot,
        interval: Interval,
        request: ArrivingRequest,
        components: list[float],
    ) -> Observation:
        """Return what the policy sees when ``request`` arrives, and its telemetry."""
        self._remember(interval)
        outstanding = snapshot.outstanding
        loads = outstanding.tolist()
        qps = 1.0 / self._gap_s if self._gap_s > 0.0 else 0.0
        balance = _balance(loads)
        compared = np.array(self._compared_rows(snapshot, request, outstanding))
        least = compared.min(axis=1, keepdims=True)
        replicas = self._replica_features(snapshot, request, compared, least)
        context = [
            request.prompt_tokens,
            math.log(request.prompt_tokens),
            sum(loads) / len(loads),
            sum(snapshot.row("waiting").tolist()) / len(loads),
            float(least[_PENDING, 0]),
            float(least[_LATENCY, 0]),
            qps,
            0.0 if math.isnan(self._latency_s) else self._latency_s,
            0.0 if math.isnan(self._ttft_s) else self._ttft_s,
            self._completions,
            balance,
        ]
        if self._section.output_length == "oracle":
            context.append(request.output_tokens)
        if self._section.history:
            history = self._qps_history.update(np.array([qps]))
            context += [float(history[HISTORY.index(name), 0]) for name in _CONTEXT_HISTORY]
        telemetry = [qps, self._latency_s, balance, *components]
        return Observation(
            replicas[np.newaxis],
            np.array([context], dtype=np.float64),
            np.array([telemetry], dtype=np.float64),
        )

    def _remember(self, interval: Interval) -> None:
        """Update the recent arrival gap, latencies and completion rate."""
        if self._gap_s == 0.0:
            self._gap_s = interval.duration_s
        self._gap_s += _RECENT * (interval.duration_s - self._gap_s)
        self._completions += _RECENT * (len(interval.completions) - self._completions)
        for completion in interval.completions:
            if math.isnan(self._latency_s):
                self._latency_s, self._ttft_s = completion.e2e_s, completion.ttft_s
            self._latency_s += _RECENT * (completion.e2e_s - self._latency_s)
            self._ttft_s += _RECENT * (completion.ttft_s - self._ttft_s)

    def _compared_rows(
        self,
        snapshot: ClusterSnapshot,
        request: ArrivingRequest,
        outstanding: NDArray[np.float64],
    ) -> list[NDArray[np.float64]]:
        """Return what replicas are compared by, in the order of ``_COMPARED``, [R] each."""
        return [
            outstanding,
            snapshot.row("pending_prefill_tokens"),
            snapshot.row("context_tokens"),
            snapshot.kv_used_fraction,
            *self._estimator.ttft_and_latency_s(snapshot, request.prompt_tokens),
        ]

    def _replica_features(
        self,
        snapshot: ClusterSnapshot,
        request: ArrivingRequest,
        compared: NDArray[np.float64],
        least: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the features [R, F] in the order of the schema."""
        running = snapshot.row("running")
        prompt_blocks = request.prompt_tokens / self._block_size
        derived = [
            snapshot.row("generated_tokens") / np.maximum(running, 1.0),
            (snapshot.row("kv_blocks_used") + prompt_blocks) / snapshot.row("kv_blocks_total"),
            running / snapshot.row("batch_capacity"),
        ]
        blocks: list[NDArray[np.float64]] = [
            snapshot.table[_PLAIN_ROWS],
            np.array(derived),
            compared,
            compared - least,
        ]
        if self._section.output_length == "oracle":
            remaining = snapshot.row("remaining_output_tokens")
            blocks.append(np.array([remaining, remaining - remaining.min()]))
        if self._section.history:
            blocks.append(self._outstanding.update(compared[_COMPARED.index("outstanding")]))
        if self._section.queue_slots:
            blocks.append(self._queue_rows(snapshot))
        return np.concatenate(blocks).T

    def _queue_rows(self, snapshot: ClusterSnapshot) -> NDArray[np.float64]:
        """Return the first waiting requests [slots * 4, R]; absent ones are zeros."""
        slots = self._section.queue_slots
        rows = np.zeros((slots * len(_SLOT), snapshot.num_replicas))
        for replica, queue in enumerate(snapshot.queues):
            for slot, waiting in enumerate(queue[:slots]):
                first = slot * len(_SLOT)
                rows[first : first + len(_SLOT), replica] = (
                    waiting.age_s,
                    waiting.prompt_tokens,
                    waiting.processed_tokens,
                    waiting.remaining_tokens,
                )
        return rows


def _balance(loads: list[float]) -> float:
    """Return 1 for even loads, 0 when one replica holds everything."""
    total = sum(loads)
    if total == 0.0 or len(loads) == 1:
        return 1.0
    even = 1.0 / len(loads)
    return 1.0 - (max(loads) / total - even) / (1.0 - even)
