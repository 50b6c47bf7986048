"""The arrays of one simulation, and what stands in each of their columns.

Every array's shape depends on the cluster and the number of requests alone, so arrays of equal
simulations can be stacked. N requests, R replicas, C requests per batch, B tokens per KV block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.columns import Column
from vidur_ext.execution_time.tables import TableLimits
from vidur_ext.routing.comparing import Compared
from vidur_ext.routing.estimator import Estimates
from vidur_ext.routing.thresholds import Thresholds
from vidur_ext.workload.routed_sessions import RoutedSessions

Ints = NDArray[np.int64]


class Batching(IntEnum):
    """The replica schedulers that are compiled."""

    SARATHI = 0
    VLLM = 1
    ORCA = 2
    VLLM_V1 = 3


class Knowledge(IntEnum):
    """What a router knows of the replicas' prefix caches: ``observation.prefix_knowledge``."""

    NONE = 0
    EXACT = 1
    APPROXIMATE = 2


GIVEN = -1
SHORTEST_QUEUE = -2
SEQUENCE = -3
"""Routing rules beside the heuristics, which are numbered from 0. GIVEN takes every replica from an
array, by requests, SEQUENCE by decisions; SHORTEST_QUEUE is Vidur's ``lor``."""


class Request(Column):
    """Columns of ``EngineState.requests``."""

    PROMPT = "tokens", "to prefill; Vidur adds the tokens so far when it restarts a request"
    TOTAL = "tokens", "of prompt and output"
    DONE = "tokens", "that are processed, of a decoding request less its replica's ROUNDS"
    NEXT = "request", "who waits after it"
    REPLICA = "replica", "where it is, -1 before it is routed"
    RESTARTS = "preemptions", "suffered so far"
    OUTPUT = "tokens", "of output, as on arrival"


class Text(Column):
    """Columns of ``Prefixes.texts``: requests in the prefix cache."""

    LINE = "line", "that prompt and answer end on"
    TOP = "extent", "of the prefix cache that holds the last of its registered blocks, -1 without"
    REGISTERED = "blocks", "of its text that can be found, or could when it registered them"
    KNOWN = "tokens", "of it that are certain: what a planner expects beyond them nobody finds"
    HITS = "tokens", "found in the cache when it was first scheduled"


class Line(Column):
    """Columns of ``Inputs.lines``: texts as a tree; a line leaves another one where texts part.

    A request's text, prompt and answer, is a part of its line, of the line that this one left, and
    so on. Positions are counted in full blocks from the beginning of the text.
    """

    PARENT = "line", "that it left, -1 at the beginning of a text"
    BASE = "blocks", "of text before it"


class InSession(Column):
    """Columns of ``Inputs.sessions``: what a router knows of sessions."""

    SESSION = "", "number of the session that a request belongs to"
    BEFORE = "request", "of the session before it, -1 for the first one"


class Time(Column):
    """Columns of ``EngineState.times``; 0 until it happens, as in Vidur."""

    SCHEDULED = "s", "its first batch begins"
    PREFILLED = "s", "its first token is there"
    COMPLETED = "s", "its last token is there"


class Replica(Column):
    """Columns of ``EngineState.replicas``.

    MEMBERS stand in ``EngineState.members`` in the order of Vidur's list of preempted requests:
    first the DECODING ones, then those with a chunk in the running batch.
    """

    HEAD = "request", "that waits first"
    TAIL = "request", "that waits last"
    WAITING = "requests", "in the queue"
    MEMBERS = "requests", "with KV blocks"
    DECODING = "requests", "of these, past their prefill"
    PARTIAL = "flag", "between batches: the last member's prompt is begun and not done"
    DECODES = "flag", "the running batch advances the decoding requests"
    ROUNDS = "batches", "so far that advanced the decoding requests"
    NEXT_FINISH = "round", "that completes one of them"
    FREE = "blocks", "of the KV cache that are free"
    STEADY = "flag", "unless a request arrives, the next batch is this one again"
    ROOM = "rounds", "of a steady batch until its duration changes"
    ROUTED = "flag", "got a request at this instant and has not looked at it"
    PENDING = "tokens", "of prompts, still to be processed"
    OFFSETS = "tokens", "sum of DONE over the decoding requests"
    PARTIAL_DONE = "tokens", "that are processed of begun prompts"
    TOKENS = "tokens", "sum of TOTAL over all requests here"
    GENERATED = "tokens", "sum of DONE less PROMPT over the decoding requests"
    RESTARTED = "preemptions", "sum of RESTARTS over all requests here"


class Shelf(Column):
    """Columns of ``Prefixes.shelves``: the unused blocks of a replica's prefix cache.

    With what has been taken of them since somebody looked, they are those that are FREE.
    """

    BLANK = "blocks", "that hold nothing; they are the first to be taken"
    CACHED = "blocks", "that hold text"
    OLDEST = "extent", "of unused blocks that is evicted first"
    NEWEST = "extent", "of unused blocks that is evicted last"
    EXTENTS = "extents", "of the prefix cache"
    SPARE = "extent", "row that was in use and is not; links to the next one by LATER"
    ROWS = "extents", "rows that were ever in use"


class Extent(Column):
    """Columns of ``Prefixes.extents``: consecutive blocks of a text, registered in the cache.

    Blocks [START, END) of a line. Those of an extent have the same users.
    """

    LINE = "line", "that the blocks are on, ALIAS for a row that stands for another"
    START = "blocks", "of text before them"
    END = "blocks", "of text to their end"
    USERS = "requests", "that have them"
    BELOW = "extent", "that its users have before it, -1 at the beginning of a text"
    NEXT = "extent", "on the same line that was registered after it, or of which this is an alias"
    EARLIER = "extent", "that is evicted before it"
    LATER = "extent", "that is evicted after it"


ALIAS = -2
"""LINE of an extent that a request has under another BELOW than the first of its users."""


class Held(Column):
    """Columns of ``Prefixes.lines``: what a replica has of a line."""

    FIRST = "extent", "that was registered first, -1 without any"
    DECODING = "requests", "that decode, and whose text ends on it"


NEVER = 1 << 62
"""NEXT_FINISH without decoding requests."""

EXTENTS_PER_REQUEST, EXTENTS_PER_BATCH = 4, 512
"""Room for the extents of a replica's prefix cache. A request adds one for its text and one where
it leaves another's; the rest is for what preemptions cut off, and what one batch may need. Fewer
blocks than requests need as much per block: what has been taken of them is evicted later."""


class Clock(Column):
    """Columns of ``EngineState.clocks``."""

    BATCH_END = "s", "when the running batch ends, infinite without one"
    ITERATION = "s", "its duration"


class Counter(Column):
    """Entries of ``EngineState.counters``."""

    ARRIVALS = "requests", "routed so far"
    OPEN = "flag", "some replica is ROUTED"
    WORD = "words", "used of the random stream"
    FINISHED = "requests", "completed so far"
    FINISHED_OUTPUT = "tokens", "of output of the completed requests"
    OVERFLOW = "replica", "1 + one whose batch exceeds the tables, -1 - one whose cache its rows"
    SEEN = "requests", "FINISHED at the last decision"
    UNANSWERED = "requests", "here without a first token"
    LAST = "flag", "without Turns: the next request comes after the batches that end as it does"


class Since(Column):
    """Entries of ``EngineState.since``: sums since the last decision."""

    COMPLETED_AFTER = "s", "from the decision to each completion"
    ANSWERED_AFTER = "s", "from the decision to each first token"


class Own(Column):
    """Columns of ``Settings.own``: what differs between replicas."""

    KIND = "kind", "the replica's place in Tables"
    BATCH_CAP = "requests", "of a batch at most"
    BLOCKS = "blocks", "of its KV cache"
    WATERMARK = "blocks", "that stay free when a request is admitted"


class Settings(NamedTuple):
    """What Vidur's replica schedulers are told.

    ``batch_tokens`` is Sarathi's chunk and vLLM's token limit; ``flat_blocks`` is what Orca
    reserves per request; ``rule`` routes; ``batch_capacity`` is the requests of a batch, as the
    config says. own [R, len(Own)] is what differs between replicas. The router sees the replicas as
    they were ``signal_delay_s`` ago. prefix_caching (0 or 1): VLLM_V1 keeps what it has computed.
    thresholds: what ``rule`` is told.
    prefix_knowledge: a ``Knowledge``; EXACT is ``kv_event_delay_s`` old, APPROXIMATE an index of
    ``index_blocks`` per replica.
    """

    scheduler: int
    rule: int
    batch_tokens: int
    block_size: int
    flat_blocks: int
    batch_capacity: float
    own: Ints
    signal_delay_s: float
    prefix_caching: int
    thresholds: Thresholds
    prefix_knowledge: int
    kv_event_delay_s: float
    index_blocks: int

    @property
    def num_blocks(self) -> Ints:
        """KV blocks [R]."""
        return self.own[:, Own.BLOCKS]

    def without_knowledge(self) -> Settings:
        """Return the same of a router that asks for nothing, or looks into the caches itself."""
        return self._replace(prefix_knowledge=int(Knowledge.NONE), kv_event_delay_s=0.0)

    def without_index(self) -> Settings:
        """Return the same of a state that follows a simulation, whose router has the index."""
        if self.prefix_knowledge != Knowledge.APPROXIMATE:
            return self
        return self._replace(prefix_knowledge=int(Knowledge.EXACT))


def sees_late(settings: Settings) -> bool:
    """Return whether a router sees anything as it was before."""
    return settings.signal_delay_s > 0.0 or settings.kv_event_delay_s > 0.0


class Tables(NamedTuple):
    """Operator times of one layer [ms] on D kinds of devices, keyed as Vidur's predictor rounds.

    per_tokens [D, T, 5]: by tokens / 8, the terms of Vidur's sum around the attention kernels:
    projections and RoPE, all-reduce, attention norm, MLP, add. decode [D, n, k]: n requests of
    k * kv_step tokens. prefill [D, k, c]: a chunk of c * 32 tokens up to k * kv_step.
    request_s [D]: seconds that a request spends outside its batches.
    """

    per_tokens: Floats
    decode: Floats
    prefill: Floats
    request_s: Floats
    kv_step: int
    num_layers: float


class Cluster(NamedTuple):
    """A cluster in numbers: all that is known of it before any request arrives.

    limits: what the tables cover. The routing rule in ``settings`` is GIVEN until a simulation
    chooses one.
    """

    settings: Settings
    tables: Tables
    estimates: Estimates
    limits: TableLimits

    @property
    def num_replicas(self) -> int:
        """Replicas R."""
        return len(self.settings.own)


class Turns(NamedTuple):
    """Which requests wait for the answer to another one.

    previous int64 [N]: the request whose completion each one waits for, -1 without one; next int64
    [N]: the request that waits for it, -1 without one; think_s [N]: seconds that a request arrives
    after that completion.
    """

    previous: Ints
    next: Ints
    think_s: Floats

    @property
    def waits(self) -> NDArray[np.bool_]:
        """Which requests [N] wait."""
        return self.previous >= 0

    def of(self, env: int) -> Turns:
        """Return one of the stacked ones."""
        return Turns(self.previous[env], self.next[env], self.think_s[env])


class Inputs(NamedTuple):
    """What is known beforehand and never changes.

    choices [N]: replicas under the rules GIVEN and SEQUENCE; -1 asks the caller. lines [N,
    len(Line)]: line i is left to request i; there are none without ``EngineState.prefixes``. turns:
    None where no request waits for an answer. sessions [N, len(InSession)]. words: the 32-bit words
    of the random stream that breaks ties.
    """

    choices: Ints
    lines: Ints | None
    turns: Turns | None
    sessions: Ints
    words: NDArray[np.uint32]


class Prefixes(NamedTuple):
    """What vLLM's V1 keeps of texts.

    extents int64 [R, E, len(Extent)] and lines int64 [R, N, len(Held)] (E and N are 0 without
    prefix caching), shelves int64 [R, len(Shelf)], texts int64 [N, len(Text)].
    """

    extents: Ints
    lines: Ints
    shelves: Ints
    texts: Ints


class Loop(Column):
    """Entries of ``Loops.counters``."""

    FRESH = "request", "the first that waits for nobody and has not arrived, N without one"
    KNOWN = "requests", "whose previous ones are answered, and that have not arrived"


class Loops(NamedTuple):
    """What becomes of sessions whose turns wait for answers.

    order int64 [N] (requests in the order of their arrival, as far as they have), known int64 [N]
    (a heap of the KNOWN requests by their arrival), counters int64 [len(Loop)].
    """

    order: Ints
    known: Ints
    counters: Ints


class Index(NamedTuple):
    """A router's own index of what it sent: a prefix cache per replica, with a prompt at a time.

    rows int64 [R, len(Replica)], of which only FREE ever changes. R is 0 where there is none.
    """

    rows: Ints
    prefixes: Prefixes


class Expected(NamedTuple):
    """What a router expects to be found in the replicas' prefix caches [tokens].

    offered int64 [R]: by each replica, of the request that waits for its decision; in_use int64
    [R]: of these, in blocks that running requests use. found int64 [N]: of each request, by the
    replica that it was sent to, when it was. spared int64 [R]: the sum of these over the requests
    on a replica that wait for their first batch. sent: what an approximate router remembers.
    """

    offered: Ints
    in_use: Ints
    found: Ints
    spared: Ints
    sent: Index


class EngineState(NamedTuple):
    """Everything that changes.

    arrived float64 [N] (times of arrival, infinite while a request waits for an answer),
    requests int64 [N, len(Request)], times float64 [N, len(Time)],
    replicas int64 [R, len(Replica)], clocks float64 [R, len(Clock)],
    members int64 [R, C], chunks int64 [R, C] (new tokens per member of the running batch),
    phases int64 [R, B] (decoding requests that need a block in rounds of this remainder),
    completions int64 [N] (requests in the order in which they were completed, per replica between
    two decisions), counters int64 [len(Counter)], since float64 [len(Since)], now float64 [1].

    prefixes, loops and expected are there with VLLM_V1 or if some request waits for an answer.
    Compiled code knows by their types what it need not look for.
    """

    arrived: Floats
    requests: Ints
    times: Floats
    replicas: Ints
    clocks: Floats
    members: Ints
    chunks: Ints
    phases: Ints
    completions: Ints
    counters: Ints
    since: Floats
    now: Floats
    prefixes: Prefixes | None
    loops: Loops | None
    expected: Expected | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array by its name."""
        return dict(_named_arrays(self, ""))


def _named_arrays(part: Any, prefix: str) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, value in part._asdict().items():
        if isinstance(value, tuple):
            yield from _named_arrays(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


_PARTS: dict[str, Any] = {"prefixes": Prefixes, "loops": Loops}


def map_states(change: Callable[..., NDArray[Any]], *states: EngineState) -> EngineState:
    """Return the state in which each array is what ``change`` makes of those of ``states``."""
    state: EngineState = _map_arrays(change, states)
    return state


def _map_arrays(change: Callable[..., NDArray[Any]], parts: Sequence[Any]) -> Any:
    if parts[0] is None:
        return None
    if not isinstance(parts[0], tuple):
        return change(*parts)
    return type(parts[0])(*(_map_arrays(change, each) for each in zip(*parts, strict=True)))


class Simulation(NamedTuple):
    """One simulation, as compiled functions take it.

    scores float64 [R], compared float64 [len(Compared), R] and, with ``state.prefixes``, way int64
    [N] (by line, the one that is left for on the way to a text's end, -1 at the last) are working
    memory.

    Stacked simulations of one cluster have a leading axis of environments in every array of
    ``state`` and in those of ``inputs`` but for ``words``.
    """

    settings: Settings
    tables: Tables
    estimates: Estimates
    inputs: Inputs
    state: EngineState
    scores: Floats
    compared: Floats
    way: Ints | None


class View(NamedTuple):
    """A simulation, and the state that its router sees: its own, or one that follows it."""

    sim: Simulation
    seen: EngineState


@compiled
def _prefixes_of(stacked: Prefixes | None, env: int) -> Prefixes | None:
    if stacked is None:
        return None
    return Prefixes(
        stacked.extents[env], stacked.lines[env], stacked.shelves[env], stacked.texts[env]
    )


@compiled
def _expected_of(stacked: Expected | None, env: int) -> Expected | None:
    if stacked is None:
        return None
    rows, prefixes = stacked.sent.rows, stacked.sent.prefixes
    return Expected(
        stacked.offered[env],
        stacked.in_use[env],
        stacked.found[env],
        stacked.spared[env],
        Index(
            rows[env],
            Prefixes(
                prefixes.extents[env],
                prefixes.lines[env],
                prefixes.shelves[env],
                prefixes.texts[env],
            ),
        ),
    )


@compiled
def _lines_of(stacked: Ints | None, env: int) -> Ints | None:
    if stacked is None:
        return None
    return stacked[env]


@compiled
def _turns_of(stacked: Turns | None, env: int) -> Turns | None:
    if stacked is None:
        return None
    return Turns(stacked.previous[env], stacked.next[env], stacked.think_s[env])


@compiled
def _loops_of(stacked: Loops | None, env: int) -> Loops | None:
    if stacked is None:
        return None
    return Loops(stacked.order[env], stacked.known[env], stacked.counters[env])


@compiled
def state_of(states: EngineState, env: int) -> EngineState:
    """Return one of the stacked states; its arrays are views."""
    return EngineState(
        states.arrived[env],
        states.requests[env],
        states.times[env],
        states.replicas[env],
        states.clocks[env],
        states.members[env],
        states.chunks[env],
        states.phases[env],
        states.completions[env],
        states.counters[env],
        states.since[env],
        states.now[env],
        _prefixes_of(states.prefixes, env),
        _loops_of(states.loops, env),
        _expected_of(states.expected, env),
    )


@compiled
def with_state(sim: Simulation, state: EngineState) -> Simulation:
    """Return a simulation in another state."""
    return Simulation(
        sim.settings,
        sim.tables,
        sim.estimates,
        sim.inputs,
        state,
        sim.scores,
        sim.compared,
        sim.way,
    )


@compiled
def with_inputs(sim: Simulation, inputs: Inputs) -> Simulation:
    """Return a simulation that knows something else beforehand."""
    return Simulation(
        sim.settings,
        sim.tables,
        sim.estimates,
        inputs,
        sim.state,
        sim.scores,
        sim.compared,
        sim.way,
    )


@compiled
def one_of(sims: Simulation, env: int) -> Simulation:
    """Return one of the stacked simulations; its arrays are views."""
    inputs = sims.inputs
    return Simulation(
        sims.settings,
        sims.tables,
        sims.estimates,
        Inputs(
            inputs.choices[env],
            _lines_of(inputs.lines, env),
            _turns_of(inputs.turns, env),
            inputs.sessions[env],
            inputs.words,
        ),
        state_of(sims.state, env),
        sims.scores,
        sims.compared,
        sims.way,
    )


def new_simulation(
    cluster: Cluster, settings: Settings, inputs: Inputs, state: EngineState
) -> Simulation:
    """Return a simulation on a cluster, or stacked ones, with working memory."""
    count = state.arrived.shape[-1]
    texts = state.prefixes is not None
    return Simulation(
        settings,
        cluster.tables,
        cluster.estimates,
        inputs if texts else inputs._replace(lines=None),
        state,
        scores=np.zeros(len(settings.own)),
        compared=np.zeros((len(Compared), len(settings.own))),
        way=np.zeros(count, dtype=np.int64) if texts else None,
    )


def alone(sim: Simulation) -> Simulation:
    """Return a simulation as one that is stacked; its arrays are views."""
    inputs = sim.inputs
    lines = None if inputs.lines is None else inputs.lines[None]
    turns: Any = None
    if inputs.turns is not None:
        turns = Turns(*(array[None] for array in inputs.turns))  # type: ignore[arg-type]
    return sim._replace(
        inputs=Inputs(inputs.choices[None], lines, turns, inputs.sessions[None], inputs.words),
        state=map_states(lambda array: array[None], sim.state),
    )


def sessions_in_numbers(sessions: RoutedSessions) -> Ints:
    """Return the ``Inputs.turns`` of requests [N]."""
    numbers = np.empty((len(sessions.session), len(InSession)), dtype=np.int64)
    numbers[:, InSession.SESSION] = sessions.session
    numbers[:, InSession.BEFORE] = sessions.before
    return numbers


def write_requests(rows: Ints, prompts: Ints, outputs: Ints) -> None:
    """Describe requests [n] that have not been routed, in ``EngineState.requests``."""
    rows[:] = 0
    rows[:, Request.PROMPT] = prompts
    rows[:, Request.TOTAL] = prompts + outputs
    rows[:, Request.OUTPUT] = outputs
    rows[:, (Request.NEXT, Request.REPLICA)] = -1


def write_texts(rows: Ints, leaves: Ints) -> None:
    """Describe texts [n] of which nothing is kept yet, in ``Prefixes.texts``.

    Args:
        leaves: the line [n] that each one ends on.
    """
    rows[:] = 0
    rows[:, Text.LINE] = leaves
    rows[:, Text.TOP] = -1
    rows[:, Text.KNOWN] = NEVER


def _new_prefixes(leaves: Ints, num_blocks: Ints, keeps: bool) -> Prefixes:
    """Return those of replicas with ``num_blocks`` [R], which keep texts or do not."""
    count, num_replicas = len(leaves), len(num_blocks)
    texts = np.empty((count, len(Text)), dtype=np.int64)
    write_texts(texts, leaves)
    shelves = np.zeros((num_replicas, len(Shelf)), dtype=np.int64)
    shelves[:, Shelf.BLANK] = num_blocks
    shelves[:, (Shelf.OLDEST, Shelf.NEWEST, Shelf.SPARE)] = -1
    kept = count if keeps else 0
    extents = EXTENTS_PER_REQUEST * min(kept, num_blocks.max(initial=0)) + EXTENTS_PER_BATCH
    lines = np.zeros((num_replicas, kept, len(Held)), dtype=np.int64)
    lines[:, :, Held.FIRST] = -1
    return Prefixes(
        extents=np.zeros((num_replicas, extents if kept else 0, len(Extent)), dtype=np.int64),
        lines=lines,
        shelves=shelves,
        texts=texts,
    )


def _new_loops(count: int) -> Loops:
    # The first row waits for nobody: it would have to wait for an earlier one.
    return Loops(
        order=np.full(count, -1, dtype=np.int64),
        known=np.full(count, -1, dtype=np.int64),
        counters=np.zeros(len(Loop), dtype=np.int64),
    )


def _new_expected(leaves: Ints, num_replicas: int, settings: Settings) -> Expected:
    knows = settings.prefix_knowledge != Knowledge.NONE
    indexed = num_replicas if settings.prefix_knowledge == Knowledge.APPROXIMATE else 0
    rows = np.zeros((indexed, len(Replica)), dtype=np.int64)
    rows[:, Replica.FREE] = settings.index_blocks
    return Expected(
        offered=np.zeros(num_replicas if knows else 0, dtype=np.int64),
        in_use=np.zeros(num_replicas if knows else 0, dtype=np.int64),
        found=np.zeros(len(leaves) if knows else 0, dtype=np.int64),
        spared=np.zeros(num_replicas if knows else 0, dtype=np.int64),
        sent=Index(rows, _new_prefixes(leaves, rows[:, Replica.FREE], keeps=indexed > 0)),
    )


def new_state(
    arrived: Floats,
    prompts: Ints,
    outputs: Ints,
    leaves: Ints,
    settings: Settings,
    turns: Turns | None = None,
) -> EngineState:
    """Return the state before the first arrival.

    Args:
        arrived: times of arrival [N] [s], of no meaning where a request waits for an answer.
        prompts, outputs: tokens [N].
        leaves: see ``write_texts``.
    """
    count, num_replicas = len(prompts), len(settings.own)
    more = turns is not None or settings.scheduler == Batching.VLLM_V1
    arrived = np.array(arrived) if turns is None else np.where(turns.waits, np.inf, arrived)
    keeps = settings.prefix_caching == 1
    requests = np.empty((count, len(Request)), dtype=np.int64)
    write_requests(requests, prompts, outputs)
    replicas = np.zeros((num_replicas, len(Replica)), dtype=np.int64)
    replicas[:, (Replica.HEAD, Replica.TAIL)] = -1
    replicas[:, Replica.FREE] = settings.num_blocks
    replicas[:, Replica.NEXT_FINISH] = NEVER
    clocks = np.zeros((num_replicas, len(Clock)))
    clocks[:, Clock.BATCH_END] = np.inf
    return EngineState(
        arrived=arrived,
        requests=requests,
        times=np.zeros((count, len(Time))),
        replicas=replicas,
        clocks=clocks,
        members=np.zeros((num_replicas, settings.own[:, Own.BATCH_CAP].max()), dtype=np.int64),
        chunks=np.zeros((num_replicas, settings.own[:, Own.BATCH_CAP].max()), dtype=np.int64),
        phases=np.zeros((num_replicas, settings.block_size), dtype=np.int64),
        completions=np.full(count, -1, dtype=np.int64),
        counters=np.zeros(len(Counter), dtype=np.int64),
        since=np.zeros(len(Since)),
        now=np.full(1, -np.inf),
        prefixes=_new_prefixes(leaves, settings.num_blocks, keeps) if more else None,
        loops=None if turns is None else _new_loops(count),
        expected=_new_expected(leaves, num_replicas, settings) if more else None,
    )
