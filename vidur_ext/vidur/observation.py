"""Observations of one environment: for Vidur, whose requests are Python objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY, Observation
from vidur_ext.compiled import compiled_entry
from vidur_ext.routing.estimator import LatencyEstimator
from vidur_ext.routing.features import (
    FeatureRule,
    feature_rule,
    observation_schema,
    write_observation,
)
from vidur_ext.routing.reward import write_interval
from vidur_ext.routing.view import (
    Arriving,
    ArrivingRequest,
    ClusterSnapshot,
    Floats,
    Memory,
    Predicted,
    Queued,
    Sight,
    SinceLastDecision,
    new_memory,
    new_sight,
)


@compiled_entry
def _write_one(
    rule: FeatureRule,
    sight: Sight,
    memory: Memory,
    replicas: Floats,
    context: Floats,
    telemetry: Floats,
) -> None:
    write_observation(rule, sight, memory, replicas, context, telemetry)


class ObservationBuilder:
    """Builds observations (B = 1) by the rules of ``features`` and keeps their history."""

    def __init__(
        self,
        section: ObservationSection,
        num_replicas: int,
        block_size: int,
        estimator: LatencyEstimator,
    ) -> None:
        self.schema = observation_schema(section)
        self._rule = feature_rule(section, block_size)
        self._estimator = estimator
        self._sight = new_sight(num_replicas, section.queue_slots)
        self._memory = new_memory(num_replicas)

    def build(
        self,
        snapshot: ClusterSnapshot,
        interval: SinceLastDecision,
        request: ArrivingRequest,
        components: Sequence[float],
    ) -> Observation:
        """Return what the policy sees when ``request`` arrives, and its telemetry."""
        sight, schema = self._sight, self.schema
        sight.table[:] = snapshot.table
        sight.request[Arriving.PROMPT_TOKENS] = request.prompt_tokens
        sight.request[Arriving.OUTPUT_TOKENS] = request.output_tokens
        ttft_s, latency_s = self._estimator.ttft_and_latency_s(snapshot, request.prompt_tokens)
        sight.predicted[Predicted.TTFT_S] = ttft_s
        sight.predicted[Predicted.LATENCY_S] = latency_s
        # Observations do not depend on which completions are in time.
        write_interval(interval, np.inf, np.inf, sight.interval)
        self._copy_queues(snapshot)
        replicas = np.empty((1, snapshot.num_replicas, len(schema.replica)))
        context = np.empty((1, len(schema.context)))
        telemetry = np.empty((1, len(schema.telemetry)))
        telemetry[0, len(TELEMETRY) :] = components
        _write_one(self._rule, sight, self._memory, replicas[0], context[0], telemetry[0])
        return Observation(replicas, context, telemetry)

    def _copy_queues(self, snapshot: ClusterSnapshot) -> None:
        queues = self._sight.queues
        if not queues.shape[1]:
            return
        queues[:] = 0.0
        for replica, queue in enumerate(snapshot.queues):
            for slot, waiting in enumerate(queue[: queues.shape[1]]):
                entry = queues[replica, slot]
                entry[Queued.AGE_S] = waiting.age_s
                entry[Queued.PROMPT_TOKENS] = waiting.prompt_tokens
                entry[Queued.PROCESSED_TOKENS] = waiting.processed_tokens
