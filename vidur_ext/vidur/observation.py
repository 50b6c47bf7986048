"""What Vidur shows of a decision, for compiled code; its requests are Python objects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ppo_scheduler.compiled import compiled, compiled_entry, tuple_of
from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.observation import Floats, Observation
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.routing.comparing import Compared
from vidur_ext.routing.components import COMPONENTS, RewardRule
from vidur_ext.routing.dice import SPARE_WORDS, WORDS_PER_DECISION, Dice, random_words
from vidur_ext.routing.estimator import Estimates, predict
from vidur_ext.routing.features import (
    FeatureRule,
    feature_rule,
    observation_schema,
    write_observation,
)
from vidur_ext.routing.heuristics import HEURISTICS, ask
from vidur_ext.routing.rewards import reward_of, reward_rule
from vidur_ext.routing.thresholds import Thresholds
from vidur_ext.routing.view import (
    Arriving,
    ArrivingRequest,
    ClusterSnapshot,
    Earned,
    Elapsed,
    Memory,
    Predicted,
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

_quantities = tuple_of(len(Quantity))
_known = tuple_of(len(Arriving))
_WORDS_AT_ONCE = 1024


class VidurView(NamedTuple):
    """What Vidur shows of a decision, and how fast its replicas are."""

    sight: Sight
    estimates: Estimates


@compiled
def look(shown: VidurView, replica: int) -> Seen:
    """Return what is seen of a replica when a request waits to be routed."""
    sight = shown.sight
    seen = SeenReplica(*_quantities(sight.table[:, replica]))
    request = SeenRequest(*_known(sight.request))
    found = sight.predicted[Predicted.FOUND_TOKENS, replica]
    in_use = sight.predicted[Predicted.FOUND_IN_USE_TOKENS, replica]
    return Seen(seen, predict(shown.estimates, replica, seen, request, found, in_use), request)


@compiled_entry
def _choose(
    number: int, shown: VidurView, told: Thresholds, table: Floats, scores: Floats, dice: Dice
) -> int:
    return ask(number, look, shown, told, table, scores, dice)


class HeuristicChooser:
    """Asks one heuristic about Vidur's cluster.

    Args:
        name: of the heuristic.
        told: what it is told beside what it sees.
        rng: breaks its ties; it is drawn from in blocks, as the compiled engine does.
    """

    def __init__(
        self, name: str, estimates: Estimates, told: Thresholds, rng: np.random.Generator
    ) -> None:
        self._number = HEURISTICS[name].number
        self._told = told
        self._rng = rng
        replicas = len(estimates.base)
        self._shown = VidurView(new_sight(replicas, 0), estimates)
        self._table, self._scores = np.zeros((len(Compared), replicas)), np.zeros(replicas)
        self._dice = Dice(np.zeros(0, np.uint32), np.zeros(1, np.int64))

    def choose(self, snapshot: ClusterSnapshot, request: ArrivingRequest) -> int:
        """Return the index of the replica for ``request``."""
        words, used = self._dice
        if len(words) - used[0] < WORDS_PER_DECISION + SPARE_WORDS:
            more = random_words(self._rng, _WORDS_AT_ONCE)
            self._dice = Dice(np.concatenate([words[used[0] :], more]), np.zeros(1, np.int64))
        write_sight(self._shown.sight, snapshot, request)
        return _choose(self._number, self._shown, self._told, self._table, self._scores, self._dice)


def write_sight(sight: Sight, snapshot: ClusterSnapshot, request: ArrivingRequest) -> None:
    """Write what is known of the replicas, of the first waiting requests and of the arriving one.

    Of ``predicted`` it writes what the router is told: the tokens that are found.
    ``queues`` may list fewer requests than the snapshot.
    """
    sight.table[:] = snapshot.table
    sight.request[Arriving.PROMPT_TOKENS] = request.prompt_tokens
    sight.request[Arriving.EXPECTED_OUTPUT_TOKENS] = request.expected_output_tokens
    sight.request[Arriving.OUTPUT_TOKENS] = request.output_tokens
    found, in_use = request.found_tokens, request.found_in_use_tokens
    sight.predicted[Predicted.FOUND_TOKENS] = 0.0 if found is None else found
    sight.predicted[Predicted.FOUND_IN_USE_TOKENS] = 0.0 if in_use is None else in_use
    sight.request[Arriving.SESSION] = request.session
    sight.request[Arriving.SESSION_REPLICA] = request.session_replica
    slots = sight.queues.shape[1]
    sight.queues[:] = 0.0
    for replica, queue in enumerate(snapshot.queues):
        for slot, waiting in enumerate(queue[:slots]):
            entry = sight.queues[replica, slot]
            entry[Queued.AGE_S] = waiting.age_s
            entry[Queued.PROMPT_TOKENS] = waiting.prompt_tokens


@compiled_entry
def _reward_of(rule: RewardRule, sight: Sight, memory: Memory, components: Floats) -> float:
    return reward_of(rule, sight, memory, components)


@compiled_entry
def write_features(
    rule: FeatureRule,
    shown: VidurView,
    memory: Memory,
    replicas: Floats,
    context: Floats,
    telemetry: Floats,
) -> None:
    sight = shown.sight
    for replica in range(len(replicas)):
        write_column(look(shown, replica).predicted, replica, sight.predicted)
    write_observation(rule, sight, memory, replicas, context, telemetry)


class Witness:
    """Turns what happened in one environment into what was earned and what is shown.

    At each decision ``earn`` comes first and ``show`` after it: they are of one sight and memory.
    """

    def __init__(
        self,
        config: RouterConfig,
        block_size: int,
        estimates: Estimates,
        scales: StageScales,
    ) -> None:
        """Begin an episode in a stage of the curriculum."""
        replicas = len(estimates.base)
        self._schema = observation_schema(config.observation)
        weight = config.lookahead.ttft_weight
        self._features = feature_rule(config.observation, block_size, weight)
        self._reward = reward_rule(config, scales)
        slots = config.observation.queue_slots
        self._shown = VidurView(new_sight(replicas, slots), estimates)
        self._memory = new_memory(replicas)

    def earn(self, snapshot: ClusterSnapshot, interval: SinceLastDecision) -> Earned:
        """Return what the last decision earned."""
        sight = self._shown.sight
        sight.table[:] = snapshot.table
        self._write_interval(interval)
        components = np.empty((1, len(COMPONENTS)))
        reward = _reward_of(self._reward, sight, self._memory, components[0])
        return Earned(np.array([reward]), components)

    def show(
        self,
        snapshot: ClusterSnapshot,
        interval: SinceLastDecision,
        request: ArrivingRequest,
        earned: Earned,
    ) -> Observation:
        """Return what the policy sees (B = 1) when ``request`` arrives, and its telemetry."""
        schema = self._schema
        self._write_interval(interval)
        write_sight(self._shown.sight, snapshot, request)
        replicas = np.empty((1, snapshot.num_replicas, len(schema.replica)))
        context = np.empty((1, len(schema.context)))
        telemetry = np.empty((1, len(schema.telemetry)))
        telemetry[:, schema.component_columns] = earned.components
        write_features(
            self._features, self._shown, self._memory, replicas[0], context[0], telemetry[0]
        )
        return Observation(replicas, context, telemetry)

    def _write_interval(self, interval: SinceLastDecision) -> None:
        out, rule, completions = self._shown.sight.interval, self._reward, interval.completions
        out[Elapsed.DURATION_S] = interval.duration_s
        out[Elapsed.REQUEST_SECONDS] = interval.request_seconds
        out[Elapsed.UNANSWERED_SECONDS] = interval.unanswered_seconds
        out[Elapsed.COMPLETIONS] = len(completions)
        out[Elapsed.IN_TIME] = sum(
            c.ttft_s <= rule.slo_ttft_s and c.tbt_s <= rule.slo_tbt_s for c in completions
        )
        out[Elapsed.E2E_SUM_S] = sum(c.e2e_s for c in completions)
        out[Elapsed.TTFT_SUM_S] = sum(c.ttft_s for c in completions)
