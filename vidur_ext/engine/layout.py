"""The arrays of one simulation, and what stands in each of their columns.

Every array's shape depends on the cluster and the number of requests alone, so arrays of equal
simulations can be stacked. N requests, R replicas, C requests per batch, B tokens per KV block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidur_ext.execution_time.tables import TableLimits

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Replica schedulers.
SARATHI, VLLM, ORCA = range(3)

# Routing rules that are compiled; GIVEN takes every replica from an array.
(
    GIVEN,
    LOR,
    LEAST_OUTSTANDING,
    POWER_OF_TWO,
    LEAST_TOKENS,
    LEAST_KV,
    VLLM_DP,
    MIN_PREDICTED_LATENCY,
    ORACLE_WORK,
) = range(9)

# Columns of State.requests.
PROMPT, TOTAL, DONE, NEXT, REPLICA, RESTARTS, OUTPUT = range(7)
"""PROMPT: tokens to prefill (Vidur adds the tokens so far when it restarts a request); TOTAL:
prompt and output tokens; DONE: processed tokens, of a decoding request less its replica's ROUNDS;
NEXT: who waits behind it; REPLICA: -1 before it is routed; OUTPUT: output tokens on arrival."""

# Columns of State.times [s]; 0 until it happens, as in Vidur.
SCHEDULED, PREFILLED, COMPLETED = range(3)

# Columns of State.replicas.
(
    HEAD,
    TAIL,
    WAITING,
    MEMBERS,
    DECODING,
    PARTIAL,
    DECODES,
    ROUNDS,
    NEXT_FINISH,
    FREE,
    STEADY,
    ROOM,
    ROUTED,
    PENDING,
    OFFSETS,
    PARTIAL_DONE,
    TOKENS,
    GENERATED,
    RESTARTED,
) = range(19)
NUM_REPLICA_COLUMNS = 19
"""HEAD, TAIL, WAITING: the queue and its length.
MEMBERS: requests with KV blocks; they stand in State.members in the order of Vidur's list of
preempted requests: first the DECODING ones, then those with a chunk in the running batch.
PARTIAL: between batches, whether the last member's prompt is begun and not done.
DECODES: whether the running batch advances the decoding requests.
ROUNDS: batches so far that advanced them; NEXT_FINISH: the round that completes one of them.
FREE: KV blocks. STEADY: unless a request arrives, the next batch is this one again.
ROOM: rounds of a steady batch until its duration changes.
ROUTED: got a request at this instant and has not looked at it.
PENDING: prompt tokens still to be processed; OFFSETS: sum of DONE over the decoding requests;
PARTIAL_DONE: processed tokens of begun prompts; TOKENS: sum of TOTAL over all requests here.
GENERATED: sum of DONE less PROMPT over the decoding requests; RESTARTED: sum of RESTARTS over all
requests here."""

NEVER = 1 << 62
"""NEXT_FINISH without decoding requests."""

# Columns of State.clocks [s].
BATCH_END, ITERATION = range(2)
"""BATCH_END: when the running batch ends, infinite without one; ITERATION: its duration."""

# Entries of State.counters.
ARRIVALS, OPEN, WORD, FINISHED, FINISHED_OUTPUT, OVERFLOW, SEEN, UNANSWERED = range(8)
NUM_COUNTERS = 8
"""ARRIVALS: requests routed so far; OPEN: some replica is ROUTED; WORD: random words used;
FINISHED: completed requests; FINISHED_OUTPUT: their output tokens; OVERFLOW: 1 + the replica whose
batch exceeds the execution-time tables; SEEN: FINISHED at the last decision; UNANSWERED: requests
here without a first token."""

# Entries of State.since: sums since the last decision [s].
COMPLETED_AFTER, ANSWERED_AFTER = range(2)
"""From the decision to each completion, and to each first token."""


# Columns of Settings.own.
KIND, BATCH_CAP, BLOCKS, WATERMARK = range(4)
"""KIND: the replica's place in Tables; BATCH_CAP: requests of a batch at most; BLOCKS: KV blocks;
WATERMARK: those that stay free when a request is admitted."""

# Columns of Estimates.rates.
SLOPE, CHUNK_S, PREFILL_S_PER_TOKEN, DECODE_TOKEN_S = range(4)


class Settings(NamedTuple):
    """What Vidur's replica schedulers are told.

    ``batch_tokens`` is Sarathi's chunk and vLLM's token limit; ``flat_blocks`` is what Orca
    reserves per request; ``rule`` routes. own [R, 4] is what differs between replicas.
    """

    scheduler: int
    rule: int
    batch_tokens: int
    block_size: int
    flat_blocks: int
    own: Ints

    @property
    def num_blocks(self) -> Ints:
        """KV blocks [R]."""
        return self.own[:, BLOCKS]


class Tables(NamedTuple):
    """Operator times of one layer [ms] on D kinds of devices, keyed as Vidur's predictor rounds.

    per_tokens [D, T, 5]: by tokens / 8, the terms of Vidur's sum around the attention kernels:
    projections and RoPE, all-reduce, attention norm, MLP, add. decode [D, n, k]: n requests of
    k * kv_step tokens. prefill [D, k, c]: a chunk of c * 32 tokens up to k * kv_step.
    """

    per_tokens: Floats
    decode: Floats
    prefill: Floats
    kv_step: int
    num_layers: float


class Estimates(NamedTuple):
    """What ``LatencyEstimator`` knows: see there. base is [R, C + 1], rates is [R, 4]."""

    base: Floats
    rates: Floats
    prefill_tokens: float
    output_sum: float
    output_count: float


class Cluster(NamedTuple):
    """A cluster in numbers: all that is known of it before any request arrives.

    limits: what the tables cover; batch_capacity: requests of a batch, as the replica schedulers'
    config says. The routing rule in ``settings`` is GIVEN until a simulation chooses one.
    """

    settings: Settings
    tables: Tables
    estimates: Estimates
    limits: TableLimits
    batch_capacity: float

    @property
    def num_replicas(self) -> int:
        """Replicas R."""
        return len(self.settings.own)


class Inputs(NamedTuple):
    """What is known beforehand and never changes.

    arrived [N]: times [s]. choices [N]: replicas under rule GIVEN; -1 asks the caller. words: the
    32-bit words of the random stream that breaks ties.
    """

    arrived: Floats
    choices: Ints
    words: NDArray[np.uint32]


class State(NamedTuple):
    """Everything that changes; see the columns above.

    requests int64 [N, 7], times float64 [N, 3], replicas int64 [R, 19], clocks float64 [R, 2],
    members int64 [R, C], chunks int64 [R, C] (new tokens per member of the running batch),
    phases int64 [R, B] (decoding requests that need a block in rounds of this remainder),
    completions int64 [N] (requests in the order in which they were completed, per replica between
    two decisions), counters int64 [8], since float64 [2], now float64 [1].
    """

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


class Simulation(NamedTuple):
    """One simulation, as compiled functions take it."""

    settings: Settings
    tables: Tables
    estimates: Estimates
    inputs: Inputs
    state: State


def new_state(prompts: Ints, outputs: Ints, num_replicas: int, settings: Settings) -> State:
    """Return the state before the first arrival."""
    requests = np.zeros((len(prompts), 7), dtype=np.int64)
    requests[:, PROMPT] = prompts
    requests[:, TOTAL] = prompts + outputs
    requests[:, OUTPUT] = outputs
    requests[:, (NEXT, REPLICA)] = -1
    replicas = np.zeros((num_replicas, NUM_REPLICA_COLUMNS), dtype=np.int64)
    replicas[:, (HEAD, TAIL)] = -1
    replicas[:, FREE] = settings.num_blocks
    replicas[:, NEXT_FINISH] = NEVER
    clocks = np.zeros((num_replicas, 2))
    clocks[:, BATCH_END] = np.inf
    return State(
        requests=requests,
        times=np.zeros((len(prompts), 3)),
        replicas=replicas,
        clocks=clocks,
        members=np.zeros((num_replicas, settings.own[:, BATCH_CAP].max()), dtype=np.int64),
        chunks=np.zeros((num_replicas, settings.own[:, BATCH_CAP].max()), dtype=np.int64),
        phases=np.zeros((num_replicas, settings.block_size), dtype=np.int64),
        completions=np.full(len(prompts), -1, dtype=np.int64),
        counters=np.zeros(NUM_COUNTERS, dtype=np.int64),
        since=np.zeros(2),
        now=np.full(1, -np.inf),
    )
