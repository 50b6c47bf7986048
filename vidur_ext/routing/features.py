"""What the policy sees: one table of features, each with its name, unit, meaning and formula.

Schema, compiled writer and ``docs/features.md`` follow from ``REPLICA``, the slots and ``COMMON``.
A feature of known quantities is one row more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled
from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import TELEMETRY, Floats, ObservationSchema
from vidur_ext.columns import Column
from vidur_ext.routing.components import COMPONENT_NAMES
from vidur_ext.routing.view import (
    Arriving,
    Elapsed,
    Memory,
    Past,
    Predicted,
    Quantity,
    Queued,
    Remembered,
    Sight,
    follow,
)

_RECENT = 0.05


class Known(NamedTuple):
    """What formulas compute from: what is seen, what earlier decisions have left behind, how many
    tokens a KV block holds, and ``lookahead.ttft_weight``."""

    sight: Sight
    memory: Memory
    block_size: float
    ttft_weight: float


class Formula(NamedTuple):
    """A compiled function of (``Known``, replica), or of ``Known`` for what replicas share."""

    unit: str
    meaning: str
    compute: Callable[..., float]


def formula(unit: str, meaning: str) -> Callable[[Callable[..., float]], Formula]:
    """Compile the decorated function and say what it computes."""
    return lambda function: Formula(unit, meaning, compiled(function))


@compiled
def _load(known: Known, replica: int) -> float:
    """Return the outstanding requests of a replica."""
    table = known.sight.table
    return float(table[Quantity.WAITING, replica] + table[Quantity.RUNNING, replica])


outstanding = Formula("requests", "waiting or running", _load)


@formula("tokens", "output so far per running request")
def generated_per_request(known: Known, replica: int) -> float:
    table = known.sight.table
    running = max(table[Quantity.RUNNING, replica], 1.0)
    return float(table[Quantity.GENERATED_TOKENS, replica] / running)


@formula("share", "of the KV cache that is taken")
def kv_fraction(known: Known, replica: int) -> float:
    table = known.sight.table
    return float(table[Quantity.KV_BLOCKS_USED, replica] / table[Quantity.KV_BLOCKS_TOTAL, replica])


@formula("share", "of the KV cache that the arriving request's prompt would leave taken")
def kv_fraction_after_prompt(known: Known, replica: int) -> float:
    table = known.sight.table
    prompt_blocks = known.sight.request[Arriving.PROMPT_TOKENS] / known.block_size
    return float(
        (table[Quantity.KV_BLOCKS_USED, replica] + prompt_blocks)
        / table[Quantity.KV_BLOCKS_TOTAL, replica]
    )


@formula("share", "running requests, of those that one batch may hold")
def batch_fill(known: Known, replica: int) -> float:
    table = known.sight.table
    return float(table[Quantity.RUNNING, replica] / table[Quantity.BATCH_CAPACITY, replica])


@formula("share", "of the arriving prompt that is expected in its prefix cache")
def found_share(known: Known, replica: int) -> float:
    found = known.sight.predicted[Predicted.FOUND_TOKENS, replica]
    return float(found / known.sight.request[Arriving.PROMPT_TOKENS])


@formula("", "1 where the request before it of its session was sent, 0 elsewhere")
def session_here(known: Known, replica: int) -> float:
    return 1.0 if known.sight.request[Arriving.SESSION_REPLICA] == replica else 0.0


@formula("share", "of the arriving prompt that the replica is expected to have that has the most")
def max_found_share(known: Known) -> float:
    most = 0.0
    for found in known.sight.predicted[Predicted.FOUND_TOKENS]:
        most = max(most, found)
    return float(most / known.sight.request[Arriving.PROMPT_TOKENS])


@formula("", "natural logarithm of prompt_tokens")
def log_prompt(known: Known) -> float:
    return math.log(known.sight.request[Arriving.PROMPT_TOKENS])


@formula("requests", "waiting or running, mean of the replicas")
def outstanding_per_replica(known: Known) -> float:
    table = known.sight.table
    total = table[Quantity.WAITING].sum() + table[Quantity.RUNNING].sum()
    return float(total / table.shape[1])


@formula("requests", "waiting, mean of the replicas")
def waiting_per_replica(known: Known) -> float:
    table = known.sight.table
    return float(table[Quantity.WAITING].sum() / table.shape[1])


@compiled
def _least(values: Floats) -> float:
    least = np.inf
    for value in values:
        least = min(least, value)
    return least


@formula("tokens", "pending_prefill_tokens of the replica with the fewest")
def min_pending_prefill_tokens(known: Known) -> float:
    return _least(known.sight.table[Quantity.PENDING_PREFILL_TOKENS])


@formula("s", "predicted_latency_s of the replica with the shortest")
def min_predicted_latency_s(known: Known) -> float:
    return _least(known.sight.predicted[Predicted.LATENCY_S])


@compiled
def _rate(known: Known) -> float:
    gap = known.memory.numbers[Remembered.GAP_S]
    return 1.0 / gap if gap > 0.0 else 0.0


qps = Formula("requests/s", "recent arrival rate, 0 before the second arrival", _rate)


@formula("s", "recent mean latency end to end, 0 before the first completion")
def latency_s(known: Known) -> float:
    latency = known.memory.numbers[Remembered.LATENCY_S]
    return 0.0 if np.isnan(latency) else float(latency)


@formula("s", "recent mean time to first token, 0 before the first completion")
def ttft_s(known: Known) -> float:
    ttft = known.memory.numbers[Remembered.TTFT_S]
    return 0.0 if np.isnan(ttft) else float(ttft)


@formula("", "1 for even outstanding requests, 0 when one replica holds them all")
def balance(known: Known) -> float:
    replicas = known.sight.table.shape[1]
    total = most = 0.0
    for replica in range(replicas):
        load = _load(known, replica)
        total += load
        most = max(most, load)
    if total == 0.0 or replicas == 1:
        return 1.0
    even = 1.0 / replicas
    return 1.0 - (most / total - even) / (1.0 - even)


@formula("", "natural logarithm of 1 + lookahead.ttft_weight: what routing is to make small")
def log_ttft_weight(known: Known) -> float:
    return math.log1p(known.ttft_weight)


@formula("s", "since the decision before, 0 at the first")
def elapsed_s(known: Known) -> float:
    return float(known.sight.interval[Elapsed.DURATION_S])


class Shown(IntEnum):
    """When a feature is there: always, or as the config's observation group says."""

    ALWAYS = 0
    ORACLE = 1
    HISTORY = 2
    OBJECTIVE = 3
    KNOWLEDGE = 4


class Feature(NamedTuple):
    """One column of the observation.

    source: what it holds. Members of ``Quantity``, ``Predicted``, ``Past`` (of ``outstanding``) and
    ``Queued`` are seen of replicas, those of ``Arriving``, ``Remembered`` and ``Past`` (of ``qps``)
    in common.
    above_least: it holds by how much the source exceeds that of the replica with the least. Routing
    is a choice among replicas, and such gaps stay sharp at every load level.
    """

    name: str
    source: Column | Formula
    above_least: bool = False
    shown: Shown = Shown.ALWAYS


REPLICA = (
    Feature("waiting", Quantity.WAITING),
    Feature("running", Quantity.RUNNING),
    Feature("decoding", Quantity.DECODING),
    Feature("pending_prefill_tokens", Quantity.PENDING_PREFILL_TOKENS),
    Feature("context_tokens", Quantity.CONTEXT_TOKENS),
    Feature("kv_blocks_total", Quantity.KV_BLOCKS_TOTAL),
    Feature("restarts", Quantity.RESTARTS),
    Feature("oldest_wait_s", Quantity.OLDEST_WAIT_S),
    Feature("mean_wait_s", Quantity.MEAN_WAIT_S),
    Feature("generated_per_request", generated_per_request),
    Feature("kv_fraction_after_prompt", kv_fraction_after_prompt),
    Feature("batch_fill", batch_fill),
    Feature("outstanding", outstanding),
    Feature("kv_fraction", kv_fraction),
    Feature("predicted_ttft_s", Predicted.TTFT_S),
    Feature("predicted_latency_s", Predicted.LATENCY_S),
    Feature("outstanding_gap", outstanding, above_least=True),
    Feature("pending_prefill_gap", Quantity.PENDING_PREFILL_TOKENS, above_least=True),
    Feature("context_gap", Quantity.CONTEXT_TOKENS, above_least=True),
    Feature("kv_fraction_gap", kv_fraction, above_least=True),
    Feature("predicted_ttft_s_gap", Predicted.TTFT_S, above_least=True),
    Feature("predicted_latency_s_gap", Predicted.LATENCY_S, above_least=True),
    Feature("remaining_output_tokens", Quantity.REMAINING_OUTPUT_TOKENS, shown=Shown.ORACLE),
    Feature("remaining_output_gap", Quantity.REMAINING_OUTPUT_TOKENS, True, Shown.ORACLE),
    Feature("outstanding_delta", Past.DELTA, shown=Shown.HISTORY),
    Feature("outstanding_ema", Past.EMA, shown=Shown.HISTORY),
    Feature("outstanding_trend", Past.TREND, shown=Shown.HISTORY),
    Feature("outstanding_variance", Past.VARIANCE, shown=Shown.HISTORY),
    Feature("outstanding_peak", Past.PEAK, shown=Shown.HISTORY),
    Feature("outstanding_low", Past.LOW, shown=Shown.HISTORY),
    Feature("found_tokens", Predicted.FOUND_TOKENS, shown=Shown.KNOWLEDGE),
    Feature("found_share", found_share, shown=Shown.KNOWLEDGE),
    Feature("session_here", session_here, shown=Shown.KNOWLEDGE),
    Feature("uncached_prefill_tokens", Quantity.UNCACHED_PREFILL_TOKENS, shown=Shown.KNOWLEDGE),
    Feature("found_gap", Predicted.FOUND_TOKENS, True, Shown.KNOWLEDGE),
    Feature("uncached_prefill_gap", Quantity.UNCACHED_PREFILL_TOKENS, True, Shown.KNOWLEDGE),
)
"""Features of every replica."""

FIRST_SLOT = (Feature("prompt_tokens", Queued.PROMPT_TOKENS),)
"""Features of a replica's first waiting request, ``queue0_prompt_tokens``: its age is
``oldest_wait_s``."""

NEXT_SLOTS = (
    Feature("age_s", Queued.AGE_S),
    Feature("prompt_tokens", Queued.PROMPT_TOKENS),
)
"""Features of each of the next ones: ``queue1_age_s`` and so on."""

COMMON = (
    Feature("prompt_tokens", Arriving.PROMPT_TOKENS),
    Feature("log_prompt", log_prompt),
    Feature("outstanding_per_replica", outstanding_per_replica),
    Feature("waiting_per_replica", waiting_per_replica),
    Feature("min_pending_prefill_tokens", min_pending_prefill_tokens),
    Feature("min_predicted_latency_s", min_predicted_latency_s),
    Feature("qps", qps),
    Feature("latency_s", latency_s),
    Feature("ttft_s", ttft_s),
    Feature("completions_per_arrival", Remembered.COMPLETION_RATE),
    Feature("balance", balance),
    Feature("output_tokens", Arriving.OUTPUT_TOKENS, shown=Shown.ORACLE),
    Feature("qps_ema", Past.EMA, shown=Shown.HISTORY),
    Feature("qps_trend", Past.TREND, shown=Shown.HISTORY),
    Feature("qps_variance", Past.VARIANCE, shown=Shown.HISTORY),
    Feature("log_ttft_weight", log_ttft_weight, shown=Shown.OBJECTIVE),
    Feature("max_found_share", max_found_share, shown=Shown.KNOWLEDGE),
)
"""Features that all replicas share."""

MEASURED: dict[str, Column | Formula] = {
    "qps": qps,
    "latency_s": Remembered.LATENCY_S,
    "balance": balance,
    "elapsed_s": elapsed_s,
}
"""Where the entries of ``TELEMETRY`` come from."""


_Switches = tuple[int, int, int, int, int]


def _shown(section: ObservationSection) -> _Switches:
    """Return 1 or 0 for each of ``Shown``."""
    oracle, knows = section.output_length == "oracle", section.prefix_knowledge != "none"
    return 1, int(oracle), int(section.history), int(section.objective), int(knows)


def _replica_columns(section: ObservationSection) -> list[tuple[str, Feature]]:
    shown = _shown(section)
    columns = [(feature.name, feature) for feature in REPLICA if shown[feature.shown]]
    for slot in range(section.queue_slots):
        features = NEXT_SLOTS if slot else FIRST_SLOT
        columns += [(f"queue{slot}_{feature.name}", feature) for feature in features]
    return columns


def _common_columns(section: ObservationSection) -> list[tuple[str, Feature]]:
    shown = _shown(section)
    return [(feature.name, feature) for feature in COMMON if shown[feature.shown]]


def observation_schema(section: ObservationSection) -> ObservationSchema:
    """Return the names of all columns under this config."""
    return ObservationSchema(
        replica=tuple(name for name, _ in _replica_columns(section)),
        context=tuple(name for name, _ in _common_columns(section)),
        telemetry=(*TELEMETRY, *COMPONENT_NAMES),
    )


class Families(NamedTuple):
    """Columns that tell the same, each family as its columns: a quantity and its gap, or the slots
    of the queue."""

    replica: list[list[int]]
    context: list[list[int]]


def feature_families(section: ObservationSection) -> Families:
    """Return which columns of ``observation_schema`` are of one source."""
    return Families(
        _of_one_source(_replica_columns(section)), _of_one_source(_common_columns(section))
    )


def _of_one_source(columns: Sequence[tuple[str, Feature]]) -> list[list[int]]:
    families: dict[tuple[type, Column | Formula], list[int]] = {}
    for index, (_, feature) in enumerate(columns):
        # Members of different enumerations are equal if their numbers are.
        families.setdefault((type(feature.source), feature.source), []).append(index)
    return list(families.values())


class FeatureRule(NamedTuple):
    """shown: 1 or 0 for each of ``Shown``; block_size: tokens in a KV block; ttft_weight: as in
    the config's lookahead group."""

    shown: _Switches
    history_alpha: float
    block_size: float
    ttft_weight: float


def feature_rule(section: ObservationSection, block_size: int, ttft_weight: float) -> FeatureRule:
    return FeatureRule(_shown(section), section.history_alpha, float(block_size), ttft_weight)


# Compiled code cannot loop over functions, so that writers are put together from the tables here.
# A writer gets (known, out, first column), writes its columns and returns the next one.
Writer = Callable[[Any, Floats, int], int]
Places = NDArray[np.int64]


def _places(features: Sequence[Feature], kind: type[Column]) -> Places:
    """Return [n, 2]: which of the features are of a kind of source, and which member each is."""
    places = [
        (index, int(feature.source))
        for index, feature in enumerate(features)
        if isinstance(feature.source, kind)
    ]
    return np.array(places, dtype=np.int64).reshape(-1, 2)


def _gaps(features: Sequence[Feature]) -> Places:
    """Return [n, 2]: which of the features are gaps, and which one is of the same source."""
    places = [
        (index, next(i for i, other in enumerate(features) if other.source is feature.source))
        for index, feature in enumerate(features)
        if feature.above_least
    ]
    assert not any(features[source].above_least for _, source in places), "a gap of no feature"
    return np.array(places, dtype=np.int64).reshape(-1, 2)


def _formulas(features: Sequence[Feature]) -> list[tuple[int, Callable[..., float]]]:
    return [
        (index, feature.source.compute)
        for index, feature in enumerate(features)
        if isinstance(feature.source, Formula) and not feature.above_least
    ]


def _check_sources(features: Sequence[Feature], kinds: tuple[type, ...]) -> None:
    for feature in features:
        assert isinstance(feature.source, kinds), f"{feature.name}: nothing writes {feature.source}"


@compiled
def _nothing(known: Known, out: Floats, first: int) -> None:
    pass


def _of_each(formulas: Sequence[tuple[int, Callable[..., float]]]) -> Callable[..., None]:
    """Return a compiled function that writes the formulas of all replicas, [R, F]."""
    if not formulas:
        return _nothing
    [(index, compute), *others] = formulas
    then = _of_each(others)

    @compiled
    def write(known: Known, out: Floats, first: int) -> None:
        for replica in range(out.shape[0]):
            out[replica, first + index] = compute(known, replica)
        then(known, out, first)

    return write


def _of_all(formulas: Sequence[tuple[int, Callable[..., float]]]) -> Callable[..., None]:
    """Return a compiled function that writes the formulas of what replicas share, [C]."""
    if not formulas:
        return _nothing
    [(index, compute), *others] = formulas
    then = _of_all(others)

    @compiled
    def write(known: Known, out: Floats, first: int) -> None:
        out[first + index] = compute(known)
        then(known, out, first)

    return write


def _replica_writer(features: Sequence[Feature]) -> Writer:
    """Return the writer of features [R, F] of replicas."""
    _check_sources(features, (Quantity, Predicted, Past, Formula))
    quantities, predicted = _places(features, Quantity), _places(features, Predicted)
    past, gaps = _places(features, Past), _gaps(features)
    compute, count = _of_each(_formulas(features)), len(features)

    @compiled
    def write(known: Known, out: Floats, first: int) -> int:
        sight = known.sight
        for replica in range(out.shape[0]):
            for index, row in quantities:
                out[replica, first + index] = sight.table[row, replica]
            for index, row in predicted:
                out[replica, first + index] = sight.predicted[row, replica]
            for index, row in past:
                out[replica, first + index] = known.memory.outstanding[row, replica]
        compute(known, out, first)
        for index, source in gaps:
            least = _least(out[:, first + source])
            for replica in range(out.shape[0]):
                out[replica, first + index] = out[replica, first + source] - least
        return first + count

    return write


def _common_writer(features: Sequence[Feature]) -> Writer:
    """Return the writer of features [C] that replicas share."""
    _check_sources(features, (Arriving, Remembered, Past, Formula))
    arriving, remembered = _places(features, Arriving), _places(features, Remembered)
    past = _places(features, Past)
    compute, count = _of_all(_formulas(features)), len(features)

    @compiled
    def write(known: Known, out: Floats, first: int) -> int:
        for index, row in arriving:
            out[first + index] = known.sight.request[row]
        for index, row in remembered:
            out[first + index] = known.memory.numbers[row]
        for index, row in past:
            out[first + index] = known.memory.qps[row, 0]
        compute(known, out, first)
        return first + count

    return write


def _shown_writer(
    features: Sequence[Feature], writer: Callable[[Sequence[Feature]], Writer]
) -> Callable[..., int]:
    """Return a function of (known, rule's ``shown``, out) that writes the features it shows."""
    order = [feature.shown for feature in features]
    assert order == sorted(order), "a row that is not always there stands after those that are"
    always, oracle, history, objective, knowledge = (
        writer([feature for feature in features if feature.shown == shown]) for shown in Shown
    )

    @compiled
    def write(known: Known, shown: _Switches, out: Floats) -> int:
        column = always(known, out, 0)
        if shown[1]:
            column = oracle(known, out, column)
        if shown[2]:
            column = history(known, out, column)
        if shown[3]:
            column = objective(known, out, column)
        if shown[4]:
            column = knowledge(known, out, column)
        return column

    return write


_write_replicas = _shown_writer(REPLICA, _replica_writer)
_write_common = _shown_writer(COMMON, _common_writer)
_write_measured = _common_writer([Feature(name, MEASURED[name]) for name in TELEMETRY])
_FIRST_PLACES, _NUM_FIRST = _places(FIRST_SLOT, Queued), len(FIRST_SLOT)
_NEXT_PLACES, _NUM_NEXT = _places(NEXT_SLOTS, Queued), len(NEXT_SLOTS)
_HISTORY = int(Shown.HISTORY)


@compiled
def _write_queues(queues: Floats, out: Floats, first: int) -> None:
    if not queues.shape[1]:
        return
    for replica in range(queues.shape[0]):
        for index, row in _FIRST_PLACES:
            out[replica, first + index] = queues[replica, 0, row]
        for slot in range(1, queues.shape[1]):
            column = first + _NUM_FIRST + (slot - 1) * _NUM_NEXT
            for index, row in _NEXT_PLACES:
                out[replica, column + index] = queues[replica, slot, row]


@compiled
def _remember(interval: Floats, numbers: Floats) -> None:
    """Let the recent arrival gap, latencies and completion rate follow.

    Each completion of an interval counts as the mean of all of them, so that no order matters.
    """
    if numbers[Remembered.GAP_S] == 0.0:
        numbers[Remembered.GAP_S] = interval[Elapsed.DURATION_S]
    numbers[Remembered.GAP_S] += _RECENT * (
        interval[Elapsed.DURATION_S] - numbers[Remembered.GAP_S]
    )
    completions = interval[Elapsed.COMPLETIONS]
    numbers[Remembered.COMPLETION_RATE] += _RECENT * (
        completions - numbers[Remembered.COMPLETION_RATE]
    )
    if completions == 0.0:
        return
    latency = interval[Elapsed.E2E_SUM_S] / completions
    ttft = interval[Elapsed.TTFT_SUM_S] / completions
    if np.isnan(numbers[Remembered.LATENCY_S]):
        numbers[Remembered.LATENCY_S], numbers[Remembered.TTFT_S] = latency, ttft
        return
    weight = 1.0 - (1.0 - _RECENT) ** completions
    numbers[Remembered.LATENCY_S] += weight * (latency - numbers[Remembered.LATENCY_S])
    numbers[Remembered.TTFT_S] += weight * (ttft - numbers[Remembered.TTFT_S])


@compiled
def write_observation(
    rule: FeatureRule,
    sight: Sight,
    memory: Memory,
    replicas: Floats,
    context: Floats,
    telemetry: Floats,
) -> None:
    """Write one observation: replicas [R, F], context [C], and the first entries of telemetry.

    After them telemetry holds the reward's components, which are the caller's.
    """
    known = Known(sight, memory, rule.block_size, rule.ttft_weight)
    _remember(sight.interval, memory.numbers)
    if rule.shown[_HISTORY]:
        for replica in range(len(replicas)):
            follow(memory.outstanding, replica, _load(known, replica), rule.history_alpha)
        follow(memory.qps, 0, _rate(known), rule.history_alpha)
    column = _write_replicas(known, rule.shown, replicas)
    _write_queues(sight.queues, replicas, column)
    _write_common(known, rule.shown, context)
    _write_measured(known, telemetry, 0)
