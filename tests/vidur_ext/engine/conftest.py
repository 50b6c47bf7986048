"""Random clusters with random requests, and what either engine makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from ppo_scheduler.compiled import compiled_entry
from vidur_ext.config.sections import SCHEDULERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation, loop
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.failures import formed_batch
from vidur_ext.engine.layout import Clock, Counter, Replica
from vidur_ext.vidur.analytic_predictor import token_lists
from vidur_ext.vidur.engine_inputs import cluster_of, engine_cluster
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config
from vidur_ext.vidur.simulation import VidurSimulation, routed_by
from vidur_ext.workload.prompts import Prompts, ragged_indices
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import NO_PREVIOUS, Sessions

# The latency estimator of the plug-in's heuristics asks for 2048 tokens of context and for one
# prompt that fills a batch; Orca puts any number of whole prompts into one.
_PREDICTOR = "--analytic_execution_time_predictor_config_"
LARGE_TABLES = (
    f"{_PREDICTOR}prediction_max_tokens_per_request",
    "2048",
    f"{_PREDICTOR}prediction_max_prefill_chunk_size",
    "65536",
)


@compiled_entry
def _run_until(sim, until):
    loop.run_until(sim, until)


@dataclass(frozen=True)
class Case:
    """A cluster, its router, and the requests."""

    cluster: dict[str, Any]
    rule: str
    max_tokens: int
    seed: int
    table: RequestTable
    signal_delay_s: float = 0.0
    knowledge: dict[str, Any] = field(default_factory=dict)
    """Keys of ``observation``: what is known of prefix caches."""

    def with_table(self, table: RequestTable) -> Case:
        return replace(self, table=table)

    def with_copies(self, requests: np.ndarray, times: np.ndarray) -> Case:
        """Return the case with copies of some requests at other times, as the same prompts."""
        table = self.table
        rows = np.concatenate([np.arange(len(table)), requests])
        times = np.concatenate([table.arrived_at, times])
        order = np.argsort(times, kind="stable")
        rows, prompts = rows[order], table.prompts
        if prompts is not None:
            lengths = np.diff(prompts.first)[rows]
            at = ragged_indices(prompts.first[rows], lengths)
            first = np.concatenate([[0], np.cumsum(lengths)])
            # An answer that is found again must be known by one name only.
            names = np.where(order < len(table), prompts.answers[rows], 2 * ANSWERS + order)
            prompts = Prompts(prompts.segments[at], prompts.tokens[at], first, names)
        sessions = table.sessions
        if sessions is not None:
            sessions = _open_sessions(sessions.session[rows])
        return self.with_table(
            RequestTable(
                times[order],
                table.prefill_tokens[rows],
                table.decode_tokens[rows],
                prompts,
                sessions,
            )
        )

    @property
    def keeps_texts(self) -> bool:
        """Whether its replicas have prefix caches."""
        v1 = self.cluster.get("replica_scheduler") == "vllm_v1"
        return bool(v1 and self.cluster["prefix_caching"])

    def with_sessions(self, data: st.DataObject) -> Case:
        """Let some requests wait for the answers to others."""
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "sessions' seed"))
        pause = data.draw(st.sampled_from([0.0, 0.1, 2.0]), "mean think time")
        previous = np.full(len(self.table), -1)
        session, turn = np.arange(len(self.table)), np.zeros(len(self.table), dtype=np.int64)
        last: list[int] = []
        for row in range(len(self.table)):
            if last and rng.random() < 0.6:
                previous[row] = before = last.pop(int(rng.integers(len(last))))
                session[row], turn[row] = session[before], turn[before] + 1
            last.append(row)
        thinks = (rng.random(len(previous)) < 0.8) & (previous >= 0)
        think_s = np.where(thinks, rng.exponential(pause, len(previous)), 0.0)
        return self.with_table(
            replace(self.table, sessions=Sessions(session, turn, previous, think_s))
        )

    def seen_late(self, signal_delay_s: float) -> Case:
        return replace(self, signal_delay_s=signal_delay_s)

    def told_late(self, kv_event_delay_s: float) -> Case:
        """Return the case with a delay of what replicas report, if they are asked."""
        if self.knowledge.get("prefix_knowledge") != "exact":
            return self
        return replace(self, knowledge=self.knowledge | {"kv_event_delay_s": kv_event_delay_s})

    def routed_by(self, rule: str) -> Case:
        return replace(self, rule=rule)


@dataclass(frozen=True)
class Batch:
    """One batch of a replica: when, which requests, new and KV tokens, blocks then in use."""

    start: float
    end: float
    requests: list[int]
    q_tokens: list[int]
    kv_tokens: list[int]
    blocks_used: int


@dataclass
class History:
    """What happened, in the same words for both engines. times is [N, 3]."""

    routing: np.ndarray
    arrived_at: np.ndarray
    times: np.ndarray
    preemptions: np.ndarray
    found_tokens: np.ndarray
    num_blocks: list[int]
    blocks_left_in_use: int
    batches: list[list[Batch]] = field(default_factory=list)


def _draw_cluster(data: st.DataObject, max_tokens: int, scarce: bool) -> dict[str, Any]:
    """Draw a cluster on which each request can be served, perhaps one at a time.

    ``scarce``: so few KV blocks that requests which were admitted together must preempt each other.
    """
    block_size = data.draw(st.sampled_from([1, 3, 16, 32]), "block_size")
    kinds = ["sarathi", "vllm", "vllm_v1"] if scarce else ["sarathi", "vllm", "orca", "vllm_v1"]
    slots = [0, 1, 2] if scarce else [1, 3, 8, 1000]
    counts = st.integers(1, 3) if scarce else st.one_of(st.integers(1, 4), st.integers(5, 32))
    caps = [7, 128] if scarce else [1, 2, 7, 128]
    room = data.draw(st.sampled_from(slots), "room for requests")
    # Without room to spare the longest request fills the cache alone, and restarts at each token.
    watermark = data.draw(st.sampled_from([0.0, 0.01, 0.3] if room else [0.0]), "watermark")
    longest = -(-max_tokens // block_size)
    replicas = data.draw(counts, "replicas")
    names = st.sampled_from(["a40", "a100", "h100", "l40"])
    devices = st.none() | st.tuples(*[names] * replicas)
    blocks = int((longest + 2) * room / (1.0 - watermark)) + 2 if room else longest
    kind = data.draw(st.sampled_from(kinds), "replica_scheduler")
    cap = data.draw(st.sampled_from(caps), "batch_size_cap")
    chunk = data.draw(st.sampled_from([32, 100, 512]), "chunk_size")
    v1 = kind == "vllm_v1"
    return {
        "num_replicas": replicas,
        "devices": data.draw(devices, "devices"),
        "replica_scheduler": kind,
        "prefix_caching": data.draw(st.sampled_from([True, True, False]), "prefix_caching"),
        "tensor_parallel_size": data.draw(st.sampled_from([1, 1, 4]), "tensor_parallel"),
        "batch_size_cap": cap,
        "chunk_size": max(chunk, cap) if v1 else chunk,
        "max_tokens_in_batch": max_tokens * data.draw(st.integers(1, 2), "batch of prompts"),
        "block_size": block_size,
        "num_blocks": blocks + (1 if v1 else 0),  # one of vLLM's is never given out
        "watermark_blocks_fraction": watermark,
    }


def _draw_table(data: st.DataObject, max_tokens: int, replicas: int, scarce: bool) -> RequestTable:
    """Draw requests from idle to overload, some at the same instant, of all lengths.

    ``scarce``: short prompts and long outputs, all at once: their caches outgrow the blocks.
    """
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "requests' seed"))
    count = data.draw(st.integers(20 if scarce else 1, 60), "requests")
    gap = data.draw(st.sampled_from([1e-4, 1e-2] if scarce else [1e-4, 1e-2, 0.1, 2.0]), "gap")
    together = data.draw(st.sampled_from([0.0, 0.3, 1.0]), "share of simultaneous arrivals")
    gaps = rng.exponential(gap / replicas, count) * (rng.random(count) >= together)
    outputs = [max_tokens // 2, max_tokens - 8] if scarce else [1, 8, max_tokens // 2]
    longest = data.draw(st.sampled_from(outputs), "longest output")
    decode = rng.integers(1, longest + 1, count)
    prompt_limits = [max_tokens // 4] if scarce else [2, max_tokens]
    prompts = rng.integers(1, data.draw(st.sampled_from(prompt_limits), "prompts below"), count)
    prefill = np.minimum(prompts, max_tokens - decode)
    if data.draw(st.booleans(), "of one length"):
        decode, prefill = np.full(count, decode[0]), np.full(count, prefill[0])
    prompts = _draw_texts(rng, prefill, decode)
    sessions = None
    if data.draw(st.booleans(), "sessions are known"):
        sessions = _open_sessions(rng.integers(0, 8, count))
    return RequestTable(np.cumsum(gaps), prefill, decode, prompts, sessions)


def _open_sessions(session: np.ndarray) -> Sessions:
    """Return sessions whose turns arrive at times of their own."""
    nobody = np.full(len(session), NO_PREVIOUS)
    return Sessions(session, np.arange(len(session)), nobody, np.zeros(len(session)))


def _draw_texts(rng: np.random.Generator, prefill: np.ndarray, decode: np.ndarray) -> Prompts:
    """Draw what prompts consist of: some begin as an earlier one or go on after its answer.

    With nothing in common, requests are tables without texts: those are tried as well.
    """
    rows: list[list[tuple[int, int]]] = []
    for request, length in enumerate(prefill.tolist()):
        text: list[tuple[int, int]] = []
        if rows and rng.random() < 0.7:
            parent = int(rng.integers(request))
            text = [*rows[parent], (ANSWERS + parent, int(decode[parent]))]
        elif rng.random() < 0.5:
            text = [(int(rng.integers(3)), int(rng.integers(1, 200)))]
        rows.append(_cut([*text, (PROMPTS + request, length)], length))
    return Prompts.of(rows, [ANSWERS + request for request in range(len(rows))])


PROMPTS, ANSWERS = 1000, 10**6
"""Ids of the texts that are a request's own."""


def _cut(text: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    kept = []
    for segment, tokens in text:
        if length > 0:
            kept.append((segment, min(tokens, length)))
            length -= tokens
    return kept


def draw_a_case(data: st.DataObject) -> Case:
    scarce = data.draw(st.booleans(), "scarce KV blocks")
    max_tokens = data.draw(st.sampled_from([33, 64, 300, 900]), "max_tokens")
    cluster = _draw_cluster(data, max_tokens, scarce)
    case = Case(
        cluster=cluster,
        rule=data.draw(st.sampled_from(SCHEDULERS), "rule"),
        max_tokens=max_tokens,
        seed=data.draw(st.integers(0, 100), "seed"),
        table=_draw_table(data, max_tokens, cluster["num_replicas"], scarce),
    )
    return replace(case, knowledge=_draw_knowledge(data) if case.keeps_texts else {})


def _draw_knowledge(data: st.DataObject) -> dict[str, Any]:
    """Draw what a router knows of prefix caches; few blocks are soon forgotten."""
    known = data.draw(st.sampled_from(["none", "exact", "approximate"]), "prefix_knowledge")
    if known != "approximate":
        return {"prefix_knowledge": known}
    blocks = data.draw(st.sampled_from([1, 5, 20, 31_250]), "prefix_index_blocks")
    return {"prefix_knowledge": known, "prefix_index_blocks": blocks}


def _run_recorded(simulation: VidurSimulation) -> list[list[Batch]]:
    """Run while Vidur's replica schedulers tell of each batch they form."""
    formed: list[list[Any]] = []
    for scheduler in simulation.scheduler._replica_schedulers.values():
        mine: list[Any] = []
        formed.append(mine)

        def on_schedule(time, scheduler=scheduler, plain=scheduler.on_schedule, mine=mine):
            batch = plain(time)
            if batch:
                mine.append((batch, scheduler.num_allocated_blocks))
            return batch

        scheduler.on_schedule = on_schedule
    simulation.run()
    return [
        [
            Batch(b.scheduled_at, b.completed_at, b.request_ids, *map(list, token_lists(b)), used)
            for b, used in mine
        ]
        for mine in formed
    ]


def run_until(simulation: CompiledSimulation, time: float) -> None:
    """End the batches that end before ``time`` [s].

    It is at most the next arrival, and all requests of the present instant must be routed.
    """
    assert simulation.state.now[0] < simulation.next_arrival
    assert time <= simulation.next_arrival
    _run_until(simulation._sim, time)


def _step_through(simulation: CompiledSimulation, routing: np.ndarray) -> list[list[Batch]]:
    """Run a simulation batch by batch under a given routing."""
    state = simulation.state
    batches: list[list[Batch]] = [[] for _ in state.replicas]

    def go_on(time: float, now: float) -> None:
        before = state.clocks[:, Clock.BATCH_END].copy()
        run_until(simulation, time)
        for replica in np.flatnonzero(state.clocks[:, Clock.BATCH_END] != before):
            end = float(state.clocks[replica, Clock.BATCH_END])
            if np.isfinite(end):
                used = simulation.settings.num_blocks[replica] - int(
                    state.replicas[replica, Replica.FREE]
                )
                batches[replica].append(
                    Batch(now, end, *formed_batch(simulation._sim, replica), used)
                )

    while True:
        end, arrival = float(state.clocks[:, Clock.BATCH_END].min()), simulation.next_arrival
        now = float(state.now[0])
        if state.counters[Counter.OPEN] and arrival > now:
            go_on(now, now)
        elif end < arrival:
            go_on(np.nextafter(end, np.inf), end)
        elif np.isfinite(arrival):
            simulation.assign(int(routing[simulation.advance()]))
        else:
            return batches


@pytest.fixture(scope="session")
def draw_case() -> Callable[[st.DataObject], Case]:
    return draw_a_case


@pytest.fixture(scope="session")
def make_case() -> type[Case]:
    return Case


@pytest.fixture(scope="session")
def small_table() -> RequestTable:
    return RequestTable(np.arange(8) * 0.01, np.full(8, 100), np.full(8, 20))


@pytest.fixture(scope="session")
def vidur_config(tmp_path_factory):
    """Return Vidur's config of a case; ``flags`` are appended to its command line."""
    folder = str(tmp_path_factory.mktemp("vidur"))

    def build(case: Case, *flags: str, scheduler: str | None = None) -> Any:
        config = TrainingConfig.model_validate(
            {
                "training": {"seed": case.seed},
                "cluster": case.cluster,
                "workload": {"max_tokens": case.max_tokens},
                "observation": {"signal_delay_s": case.signal_delay_s, **case.knowledge},
                "evaluation": {"enabled": False},
            }
        )
        plain = cli_flags(config, scheduler or case.rule, metrics_dir=folder)
        return parse_simulation_config([*plain, *LARGE_TABLES, *flags])

    return build


class Watching:
    """Routes everything to replica 0 and keeps a copy of all that Vidur shows."""

    def __init__(self) -> None:
        self.simulation: Any = None
        self.seen: list[list[np.ndarray]] = []

    def observe(self, snapshot, interval, request) -> None:
        pass

    def decide(self, observation, reward, done) -> np.ndarray:
        sight = self.simulation.scheduler._witness._shown.sight
        self.seen.append([array.copy() for array in sight])
        return np.array([0])


def _seen_on_vidur(config: TrainingConfig, table: RequestTable) -> list[list[np.ndarray]]:
    router = Watching()
    router.simulation = routed_by(router, config, table)
    router.simulation.run()
    return router.seen


def _seen_on_the_engine(config: TrainingConfig, table: RequestTable) -> list[list[np.ndarray]]:
    envs = RoutingEnvironments(engine_cluster(config), config, num_envs=1)
    envs.begin([table])
    seen = []
    while envs.waiting:
        seen.append([array.copy() for array in envs._envs.sight])
        envs.step(np.array([0]))
    return seen


@pytest.fixture(scope="session")
def sights() -> dict[str, Callable[[TrainingConfig, RequestTable], list[list[np.ndarray]]]]:
    """Return, per engine, what shows the arrays of the sight at every decision for replica 0."""
    return {"vidur": _seen_on_vidur, "compiled": _seen_on_the_engine}


def compiled_simulation(config: Any, table: RequestTable, **more: Any) -> CompiledSimulation:
    """Return the compiled simulation of Vidur's config."""
    name = str(config.cluster_config.global_scheduler_config.get_type())
    scheduler = None if name == "ppo_modular" else name
    weight = getattr(config.cluster_config.global_scheduler_config, "ttft_weight", None)
    return CompiledSimulation(
        cluster_of(config), table, scheduler, seed=config.seed, ttft_weight=weight, **more
    )


@pytest.fixture(scope="session")
def compiled():
    return compiled_simulation


@pytest.fixture(scope="session", name="run_until")
def run_until_fixture():
    return run_until


@pytest.fixture(scope="session")
def simulate_by_vidur(vidur_config):
    def simulate(case: Case) -> History:
        simulation = VidurSimulation(vidur_config(case), case.table)
        batches = _run_recorded(simulation)
        requests, replicas = simulation.requests, simulation.scheduler._replica_schedulers.values()
        return History(
            routing=simulation.routing,
            arrived_at=simulation.times("arrived_at"),
            times=np.array(
                [(r.scheduled_at, r.prefill_completed_at, r.completed_at) for r in requests]
            ),
            preemptions=simulation.preemptions,
            found_tokens=simulation.found_tokens,
            num_blocks=[s._cache_config.num_blocks for s in replicas],
            blocks_left_in_use=sum(s.num_allocated_blocks for s in replicas),
            batches=batches,
        )

    return simulate


@pytest.fixture(scope="session")
def simulate_compiled(vidur_config):
    def simulate(case: Case) -> History:
        simulation = compiled_simulation(vidur_config(case), case.table)
        simulation.run()
        if case.table.waits:  # when requests arrive is not known beforehand
            return _history_of(simulation, [])
        stepped = compiled_simulation(vidur_config(case, scheduler="ppo_modular"), case.table)
        batches = _step_through(stepped, simulation.routing)
        for name in ("times", "requests", "replicas", "clocks"):
            np.testing.assert_array_equal(
                getattr(stepped.state, name), getattr(simulation.state, name)
            )
        return _history_of(simulation, batches)

    return simulate


def _history_of(simulation: CompiledSimulation, batches: list[list[Batch]]) -> History:
    num_blocks = simulation.settings.num_blocks
    return History(
        routing=simulation.routing,
        arrived_at=simulation.arrived_at,
        times=simulation.state.times.copy(),
        preemptions=simulation.preemptions,
        found_tokens=simulation.found_tokens,
        num_blocks=num_blocks.tolist(),
        blocks_left_in_use=int((num_blocks - simulation.state.replicas[:, Replica.FREE]).sum()),
        batches=batches,
    )


@pytest.fixture(scope="session", params=["vidur", "compiled"])
def simulate(request, simulate_by_vidur, simulate_compiled):
    """Either engine."""
    return simulate_by_vidur if request.param == "vidur" else simulate_compiled
