"""The one observation builder: for demonstrations, training and evaluation alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY, Observation, ObservationSchema
from vidur_ext.env.history import HISTORY, MovingStatistics
from vidur_ext.env.latency_estimator import LatencyEstimator
from vidur_ext.env.reward import COMPONENTS
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval

_BASE = (
    "waiting",
    "running",
    "outstanding_gap",
    "decoding",
    "pending_prefill_ktokens",
    "pending_prefill_gap",
    "context_ktokens",
    "context_gap",
    "generated_per_request",
    "kv_used_fraction",
    "kv_gap",
    "kv_total_kblocks",
    "kv_fraction_after_prompt",
    "restarts",
    "oldest_wait_s",
    "mean_wait_s",
    "batch_fill",
    "predicted_ttft_s",
    "predicted_ttft_gap",
    "predicted_latency_gap",
)
_SLOT = ("age_s", "prompt_ktokens", "processed_ktokens", "remaining_ktokens")
_ORACLE = ("remaining_output_ktokens", "remaining_output_gap")
_CONTEXT = (
    "prompt_ktokens",
    "log_prompt",
    "outstanding_per_replica",
    "waiting_per_replica",
    "min_pending_prefill_ktokens",
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
    replica = list(_BASE)
    context = list(_CONTEXT)
    if section.output_length == "oracle":
        replica += _ORACLE
        context += ["output_ktokens"]
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
        qps = 1.0 / self._gap_s if self._gap_s > 0.0 else 0.0
        balance = _balance(outstanding)
        latency_s = self._estimator.latency_s(snapshot, request.prompt_tokens)
        replicas = self._replica_rows(snapshot, request, outstanding, latency_s)
        context = [
            request.prompt_tokens / 1e3,
            float(np.log(request.prompt_tokens)),
            float(outstanding.mean()),
            float(snapshot.row("waiting").mean()),
            float(snapshot.row("pending_prefill_tokens").min()) / 1e3,
            float(latency_s.min()),
            qps,
            0.0 if np.isnan(self._latency_s) else self._latency_s,
            0.0 if np.isnan(self._ttft_s) else self._ttft_s,
            self._completions,
            balance,
        ]
        if self._section.output_length == "oracle":
            context.append(request.output_tokens / 1e3)
        if self._section.history:
            history = self._qps_history.update(np.array([qps]))
            context += [float(history[HISTORY.index(name), 0]) for name in _CONTEXT_HISTORY]
        telemetry = [qps, self._latency_s, balance, *components]
        return Observation(
            replicas[np.newaxis], np.array([context]), np.array([telemetry], dtype=np.float64)
        )

    def _remember(self, interval: Interval) -> None:
        """Update the recent arrival gap, latencies and completion rate."""
        if self._gap_s == 0.0:
            self._gap_s = interval.duration_s
        self._gap_s += _RECENT * (interval.duration_s - self._gap_s)
        self._completions += _RECENT * (len(interval.completions) - self._completions)
        for completion in interval.completions:
            if np.isnan(self._latency_s):
                self._latency_s, self._ttft_s = completion.e2e_s, completion.ttft_s
            self._latency_s += _RECENT * (completion.e2e_s - self._latency_s)
            self._ttft_s += _RECENT * (completion.ttft_s - self._ttft_s)

    def _replica_rows(
        self,
        snapshot: ClusterSnapshot,
        request: ArrivingRequest,
        outstanding: NDArray[np.float64],
        latency_s: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the features [R, F] in the order of the schema."""
        pending = snapshot.row("pending_prefill_tokens") / 1e3
        context = snapshot.row("context_tokens") / 1e3
        running = snapshot.row("running")
        used = snapshot.row("kv_blocks_used")
        total = snapshot.row("kv_blocks_total")
        fraction = used / total
        ttft_s = self._estimator.ttft_s(snapshot, request.prompt_tokens)
        prompt_fraction = request.prompt_tokens / (self._block_size * total)
        rows = [
            snapshot.row("waiting"),
            running,
            outstanding - outstanding.min(),
            snapshot.row("decoding"),
            pending,
            pending - pending.min(),
            context,
            context - context.min(),
            snapshot.row("generated_tokens") / np.maximum(running, 1.0),
            fraction,
            fraction - fraction.min(),
            total / 1e3,
            fraction + prompt_fraction,
            snapshot.row("restarts"),
            snapshot.row("oldest_wait_s"),
            snapshot.row("mean_wait_s"),
            running / snapshot.row("batch_capacity"),
            ttft_s,
            ttft_s - ttft_s.min(),
            latency_s - latency_s.min(),
        ]
        if self._section.output_length == "oracle":
            remaining = snapshot.row("remaining_output_tokens") / 1e3
            rows += [remaining, remaining - remaining.min()]
        if self._section.history:
            rows += list(self._outstanding.update(outstanding))
        table = np.array(rows)
        if self._section.queue_slots:
            table = np.concatenate([table, self._queue_rows(snapshot)])
        return table.T

    def _queue_rows(self, snapshot: ClusterSnapshot) -> NDArray[np.float64]:
        """Return the first waiting requests [slots * 4, R]; absent ones are zeros."""
        slots = self._section.queue_slots
        rows = np.zeros((slots * len(_SLOT), snapshot.num_replicas))
        for replica, queue in enumerate(snapshot.queues):
            for slot, waiting in enumerate(queue[:slots]):
                first = slot * len(_SLOT)
                rows[first : first + len(_SLOT), replica] = (
                    waiting.age_s,
                    waiting.prompt_tokens / 1e3,
                    waiting.processed_tokens / 1e3,
                    waiting.remaining_tokens / 1e3,
                )
        return rows


def _balance(outstanding: NDArray[np.float64]) -> float:
    """Return 1 for even loads, 0 when one replica holds everything."""
    total = float(outstanding.sum())
    replicas = len(outstanding)
    if total == 0.0 or replicas == 1:
        return 1.0
    even = 1.0 / replicas
    return 1.0 - (float(outstanding.max()) / total - even) / (1.0 - even)
