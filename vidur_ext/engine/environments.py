"""Many compiled simulations of one cluster that wait for their decisions together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import TELEMETRY, Floats, Observation
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.engine.closed_loops import turns_of
from vidur_ext.engine.delayed import Followers, followers_of, show_late
from vidur_ext.engine.failures import check_end
from vidur_ext.engine.layout import (
    Cluster,
    Counter,
    EngineState,
    Inputs,
    Ints,
    Prefixes,
    Request,
    Settings,
    Text,
    Time,
    Turns,
    map_states,
    new_simulation,
    new_state,
    sees_late,
    sessions_in_numbers,
)
from vidur_ext.engine.planner import Planner
from vidur_ext.engine.routing import ASK
from vidur_ext.engine.step import Environments, Outlook, step
from vidur_ext.engine.texts import Texts, texts_of
from vidur_ext.routing.features import feature_rule, observation_schema
from vidur_ext.routing.rewards import reward_rule
from vidur_ext.routing.view import Earned, Memory, new_memory, new_sight
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.routed_sessions import routed_sessions

_NOBODY = np.zeros(0, dtype=np.int64)


class RoutingEnvironments:
    """B episodes side by side; each has a table of N requests, and each step routes one of each.

    ``begin`` opens the episodes. While ``waiting``, ``observation`` shows what is to be decided,
    and ``step`` decides; ``reward`` and ``components`` are what was earned in between: before the
    first decision that is what the episodes before have earned last. At the end of the episodes,
    when every request has been served, they hold what the last decision earned.
    """

    def __init__(
        self,
        cluster: Cluster,
        config: RouterConfig,
        num_envs: int,
    ) -> None:
        self.schema = observation_schema(config.observation)
        self.num_envs = num_envs
        self.num_replicas = cluster.num_replicas
        self.waiting = False
        self._config = config
        self._cluster = cluster
        self._features = feature_rule(
            config.observation, cluster.settings.block_size, config.lookahead.ttft_weight
        )

    def begin(
        self,
        tables: Sequence[RequestTable],
        scales: StageScales | None = None,
        *,
        previous_end: Earned | None = None,
        lengths: Floats | None = None,
    ) -> None:
        """Open an episode in every environment, and go to its first request.

        Args:
            tables: the requests, as many in each environment.
            scales: the curriculum's stage; rates are the tables' own.
            previous_end: how the episodes before ended; ``reward`` and ``components`` show it with
                the first decision. Without one they are what no decision has earned.
            lengths: what is known of output lengths, for ``costs``; see ``new_lengths``.

        Raises:
            UserError: the tables are not B tables of one length.
        """
        sizes = {len(table) for table in tables}
        if len(tables) != self.num_envs or len(sizes) != 1:
            raise UserError(
                f"{self.num_envs} environments need as many request tables of one length, not "
                f"{len(tables)} of lengths {sorted(sizes)}"
            )
        count, turns = sizes.pop(), turns_of(tables, self._cluster.settings)
        texts = [texts_of(table, self._cluster.settings) for table in tables]
        lines = np.stack([text.lines for text in texts])
        sessions = np.stack([sessions_in_numbers(routed_sessions(table)) for table in tables])
        choices = np.full((len(tables), count), ASK)
        inputs = Inputs(choices, lines, turns, sessions, np.zeros(0, np.uint32))
        memories = [new_memory(self.num_replicas) for _ in tables]
        sight = new_sight(self.num_replicas, self._config.observation.queue_slots)
        cluster = self._cluster
        state = self._fresh_states(tables, texts, cluster.settings, turns)
        self._followers = followers_of(
            cluster.settings, lambda settings: self._fresh_states(tables, texts, settings, None)
        )
        self._envs = Environments(
            sims=new_simulation(cluster, cluster.settings, inputs, state),
            memory=Memory(*_stacked(memories)),
            features=self._features,
            reward=reward_rule(self._config, scales or StageScales(0)),
            sight=sight,
            bits=sight.table.view(np.uint64),
            traces=np.zeros(self.num_envs, dtype=np.uint64),
        )
        self._first_lengths = lengths
        self._planner: Planner | None = None
        self._latencies = np.zeros((choices.size, 2))
        self._go_on(_NOBODY, previous_end)

    def step(self, actions: Ints) -> None:
        """Route the waiting requests to the replicas ``actions`` [B].

        Raises:
            UserError: a batch exceeds the execution-time tables, or a request can never be served.
        """
        assert self.waiting, "no request waits for a decision"
        assert actions.shape == (self.num_envs,), actions.shape
        assert ((actions >= 0) & (actions < self.num_replicas)).all(), actions
        self._go_on(actions)

    def branches(self, choices: Ints, horizon: int) -> RoutingEnvironments:
        """Return copies that have gone different ways, to see what becomes of each.

        Copy ``b * K + k`` of environment b has routed the waiting request to ``choices[b, k]``. It
        ends when that request and at most ``horizon`` further ones are served.

        Args:
            choices: [B, K].
        """
        assert self.waiting, "no request waits for a decision"
        count, envs = choices.shape[1], self._envs
        turns = envs.sims.inputs.turns
        assert turns is None or not turns.waits.any(), "what follows in closed loops is not known"
        end = int(envs.sims.state.counters[0, Counter.ARRIVALS]) + 1 + horizon
        inputs = envs.sims.inputs
        lines = inputs.lines
        if lines is not None:
            lines = np.repeat(lines[:, :end], count, axis=0)
        copies = RoutingEnvironments(self._cluster, self._config, choices.size)
        copies._envs = envs._replace(
            sims=envs.sims._replace(
                inputs=inputs._replace(
                    choices=np.repeat(inputs.choices[:, :end], count, axis=0),
                    lines=lines,
                    turns=turns and Turns(*_repeated((part[:, :end] for part in turns), count)),
                    sessions=np.repeat(inputs.sessions[:, :end], count, axis=0),
                ),
                state=_copied(envs.sims.state, count, end),
            ),
            memory=Memory(*_repeated(envs.memory, count)),
            traces=np.repeat(envs.traces, count),
        )
        copies._followers = Followers(
            *(states and _copied(states, count, end) for states in self._followers)
        )
        copies._first_lengths = None
        copies._planner = None
        copies._latencies = np.zeros((copies._envs.sims.inputs.choices.size, 2))
        copies.waiting = True
        copies.step(choices.reshape(-1))
        return copies

    def _go_on(self, actions: Ints, previous_end: Earned | None = None) -> None:
        schema, count = self.schema, self.num_envs
        # New arrays each time: whoever got the last ones may keep them.
        out = Outlook(
            replicas=np.empty((count, self.num_replicas, len(schema.replica))),
            context=np.empty((count, len(schema.context))),
            telemetry=np.empty((count, len(schema.telemetry))),
            reward=np.empty(count),
            latencies=self._latencies,
        )
        waiting, completed = step(self._envs, actions, out)
        settings, state = self._cluster.settings, self._envs.sims.state
        if sees_late(settings):
            show_late(self._envs, *self._followers.beside(state, settings), out)
        self.waiting = waiting > 0
        if waiting < count:
            self._check_ends()
        if previous_end is not None:
            out.reward[:] = previous_end.reward
            out.telemetry[:, len(TELEMETRY) :] = previous_end.components
        self.observation = Observation(out.replicas, out.context, out.telemetry)
        self.reward = out.reward
        self.completed = self._latencies[:completed]

    def _fresh_states(
        self,
        tables: Sequence[RequestTable],
        texts: Sequence[Texts],
        settings: Settings,
        turns: Turns | None,
    ) -> EngineState:
        states = [
            new_state(
                table.arrived_at,
                table.prefill_tokens,
                table.decode_tokens,
                texts[env].leaves,
                settings,
                turns and turns.of(env),
            )
            for env, table in enumerate(tables)
        ]
        return map_states(_stack, *states)

    def costs(self, asked: NDArray[np.bool_]) -> Floats:
        """Return what every choice for the waiting requests costs [B, R]; see ``Planner.costs``.

        It is priced in the present, however late the signals: who learns from it is in a simulator.
        """
        assert self.waiting, "no request waits for a decision"
        return self._pricing().costs(self._envs.sims, asked)

    def lengths(self) -> Floats:
        """Return what is known of output lengths by now; see ``new_lengths``."""
        return self._pricing().lengths(self._envs.sims)

    def _pricing(self) -> Planner:
        """Return the planner of these episodes; it is large, and not everybody needs one."""
        if self._planner is None:
            num_requests = len(self._latencies) // self.num_envs
            weight = self._config.lookahead.ttft_weight
            self._planner = Planner(
                self._cluster, self.num_envs, num_requests, weight, lengths=self._first_lengths
            )
        return self._planner

    @property
    def components(self) -> Floats:
        """Components [B, K] of ``reward``, copied from the observation's telemetry."""
        return self.observation.telemetry[:, len(TELEMETRY) :].copy()

    @property
    def routing(self) -> Ints:
        """Replica per environment and request [B, N]; -1 for those to come."""
        return self._envs.sims.state.requests[:, :, Request.REPLICA].copy()

    @property
    def arriving(self) -> Ints:
        """Rows [B] of the waiting requests in their tables."""
        state = self._envs.sims.state
        decided = state.counters[:, Counter.ARRIVALS]
        if state.loops is None:
            return decided.copy()
        return state.loops.order[np.arange(self.num_envs), decided]

    @property
    def preemptions(self) -> Ints:
        """How often each request [B, N] had to begin again so far."""
        return self._envs.sims.state.requests[:, :, Request.RESTARTS].copy()

    @property
    def found_tokens(self) -> Ints:
        """Tokens per prompt [B, N] that a prefix cache held when it was first scheduled."""
        state = self._envs.sims.state
        if state.prefixes is None:
            return np.zeros(state.arrived.shape, dtype=np.int64)
        return state.prefixes.texts[:, :, Text.HITS].copy()

    @property
    def arrived_at(self) -> Floats:
        """Time of each request's arrival [B, N] [s]; infinite while it waits for an answer."""
        return self._envs.sims.state.arrived.copy()

    @property
    def scheduled_at(self) -> Floats:
        """Time of each request's first batch [B, N] [s]; 0 for those to come."""
        return self._times(Time.SCHEDULED)

    @property
    def prefill_completed_at(self) -> Floats:
        """Time of each request's first token [B, N] [s]; 0 for those to come."""
        return self._times(Time.PREFILLED)

    @property
    def completed_at(self) -> Floats:
        """Time of each request's last token [B, N] [s]; 0 for those to come."""
        return self._times(Time.COMPLETED)

    def _times(self, column: int) -> Floats:
        return self._envs.sims.state.times[:, :, column].copy()

    def trace(self) -> bytes:
        """Return a hash of all that was seen so far: equal traces, equal simulations."""
        return self._envs.traces.tobytes()

    def _check_ends(self) -> None:
        sims = self._envs.sims
        for env in range(self.num_envs):
            state = map_states(itemgetter(env), sims.state)
            if self.waiting and state.counters[Counter.FINISHED] == state.requests.shape[0]:
                continue
            check_end(sims._replace(state=state), self._cluster.limits)


def _copied(states: EngineState, count: int, end: int) -> EngineState:
    """Return each of the stacked states ``count`` times, with its first ``end`` requests."""
    expected = states.expected
    loops = states.loops
    of_requests = states._replace(
        loops=loops and loops._replace(order=loops.order[:, :end], known=loops.known[:, :end]),
        arrived=states.arrived[:, :end],
        requests=states.requests[:, :end],
        times=states.times[:, :end],
        completions=states.completions[:, :end],
        prefixes=states.prefixes and _of_first(states.prefixes, end),
        expected=expected
        and expected._replace(
            found=expected.found[:, :end],
            sent=expected.sent._replace(prefixes=_of_first(expected.sent.prefixes, end)),
        ),
    )
    return map_states(lambda array: np.repeat(array, count, axis=0), of_requests)


def _of_first(prefixes: Prefixes, end: int) -> Prefixes:
    return prefixes._replace(texts=prefixes.texts[:, :end], lines=prefixes.lines[:, :, :end])


def _repeated(arrays: Iterable[NDArray[Any]], count: int) -> list[NDArray[Any]]:
    """Return each row of the arrays ``count`` times."""
    return [np.repeat(array, count, axis=0) for array in arrays]


def _stacked(items: Sequence[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Stack the arrays of equal tuples: [B, ...] each."""
    return [_stack(*arrays) for arrays in zip(*items, strict=True)]


def _stack(*arrays: NDArray[Any]) -> NDArray[Any]:
    """Stack arrays [B, ...]; where they are zero, no memory is taken before it is written.

    A replica's prefix cache has room for the worst; of a megabyte or two a tenth is ever used.
    """
    stacked = np.zeros((len(arrays), *arrays[0].shape), dtype=arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        if array.any():
            row[...] = array
    return stacked
