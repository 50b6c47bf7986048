"""What Vidur shows of a decision, for compiled code; its requests are Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY, Observation
from vidur_ext.compiled import as_tuple, compiled, compiled_entry
from vidur_ext.routing.dice import SPARE_WORDS, WORDS_PER_DECISION, Dice, random_words
from vidur_ext.routing.estimator import Estimates, predict
from vidur_ext.routing.features import (
    FeatureRule,
    feature_rule,
    observation_schema,
    write_observation,
)
from vidur_ext.routing.heuristics import HEURISTICS, ask
from vidur_ext.routing.reward import write_interval
from vidur_ext.routing.view import (
    Arriving,
    ArrivingRequest,
    ClusterSnapshot,
    Floats,
    Memory,
    Quantity,
    Queued,
    Seen,
    SeenReplica,
    SeenRequest,
    Sight,
    SinceLastDecision,
    new_memory,
    new_sight,
    write_column,
)

_NUM_QUANTITIES = len(Quantity)
_NUM_KNOWN = len(Arriving)
_WORDS_AT_ONCE = 1024


class Shown(NamedTuple):
    """What Vidur shows of a decision, and how fast its replicas are."""

    sight: Sight
    estimates: Estimates


@compiled
def look(shown: Shown, replica: int) -> Seen:
    """Return what is seen of a replica when a request waits to be routed."""
    sight = shown.sight
    seen = SeenReplica(*as_tuple(sight.table[:, replica], _NUM_QUANTITIES))
    request = SeenRequest(*as_tuple(sight.request, _NUM_KNOWN))
    return Seen(seen, predict(shown.estimates, replica, seen, request), request)


@compiled_entry
def _choose(number: int, shown: Shown, scores: Floats, dice: Dice) -> int:
    return ask(number, look, shown, scores, dice)


class HeuristicChooser:
    """Asks one heuristic about Vidur's cluster.

    Args:
        name: of the heuristic.
        rng: breaks its ties; it is drawn from in blocks, as the compiled engine does.
    """

    def __init__(self, name: str, estimates: Estimates, rng: np.random.Generator) -> None:
        self._number = HEURISTICS[name].number
        self._rng = rng
        replicas = len(estimates.base)
        self._shown = Shown(new_sight(replicas, 0), estimates)
        self._scores = np.zeros(replicas)
        self._dice = Dice(np.zeros(0, np.uint32), np.zeros(1, np.int64))

    def choose(self, snapshot: ClusterSnapshot, request: ArrivingRequest) -> int:
        """Return the index of the replica for ``request``."""
        words, used = self._dice
        if len(words) - used[0] < WORDS_PER_DECISION + SPARE_WORDS:
            more = random_words(self._rng, _WORDS_AT_ONCE)
            self._dice = Dice(np.concatenate([words[used[0] :], more]), np.zeros(1, np.int64))
        _write_sight(self._shown.sight, snapshot, request)
        return _choose(self._number, self._shown, self._scores, self._dice)


def _write_sight(sight: Sight, snapshot: ClusterSnapshot, request: ArrivingRequest) -> None:
    """Write what is known of the replicas, of the first waiting requests and of the arriving one.

    ``queues`` may list fewer requests than the snapshot.
    """
    sight.table[:] = snapshot.table
    sight.request[Arriving.PROMPT_TOKENS] = request.prompt_tokens
    sight.request[Arriving.EXPECTED_OUTPUT_TOKENS] = request.expected_output_tokens
    sight.request[Arriving.OUTPUT_TOKENS] = request.output_tokens
    slots = sight.queues.shape[1]
    sight.queues[:] = 0.0
    for replica, queue in enumerate(snapshot.queues):
        for slot, waiting in enumerate(queue[:slots]):
            entry = sight.queues[replica, slot]
            entry[Queued.AGE_S] = waiting.age_s
            entry[Queued.PROMPT_TOKENS] = waiting.prompt_tokens
            entry[Queued.PROCESSED_TOKENS] = waiting.processed_tokens


@compiled_entry
def _write_one(
    rule: FeatureRule,
    shown: Shown,
    memory: Memory,
    replicas: Floats,
    context: Floats,
    telemetry: Floats,
) -> None:
    sight = shown.sight
    for replica in range(len(replicas)):
        write_column(look(shown, replica).predicted, replica, sight.predicted)
    write_observation(rule, sight, memory, replicas, context, telemetry)


class ObservationBuilder:
    """Builds observations (B = 1) by the rules of ``features`` and keeps their history."""

    def __init__(self, section: ObservationSection, block_size: int, estimates: Estimates) -> None:
        self.schema = observation_schema(section)
        replicas = len(estimates.base)
        self._rule = feature_rule(section, block_size)
        self._shown = Shown(new_sight(replicas, section.queue_slots), estimates)
        self._memory = new_memory(replicas)

    def build(
        self,
        snapshot: ClusterSnapshot,
        interval: SinceLastDecision,
        request: ArrivingRequest,
        components: Sequence[float],
    ) -> Observation:
        """Return what the policy sees when ``request`` arrives, and its telemetry."""
        schema, sight = self.schema, self._shown.sight
        _write_sight(sight, snapshot, request)
        # Observations do not depend on which completions are in time.
        write_interval(interval, np.inf, np.inf, sight.interval)
        replicas = np.empty((1, snapshot.num_replicas, len(schema.replica)))
        context = np.empty((1, len(schema.context)))
        telemetry = np.empty((1, len(schema.telemetry)))
        telemetry[0, len(TELEMETRY) :] = components
        _write_one(self._rule, self._shown, self._memory, replicas[0], context[0], telemetry[0])
        return Observation(replicas, context, telemetry)
