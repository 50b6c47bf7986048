"""Compiled: what every choice for a waiting request costs, found by simulating each of them.

For each replica the cluster is copied as it stands, with the expected output lengths in place of
the true ones, the request is queued there, and all is served without further arrivals:

    cost = sum over all requests of  time to completion + L * time to first token.

Replicas do not touch each other meanwhile, so choices differ only by what the request changes on
its own replica: each replica is served twice, with the request and without it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled, compiled_entry
from ppo_scheduler.observation import Floats
from vidur_ext.engine.closed_loops import arriving
from vidur_ext.engine.execution import OUTSIDE, steady_iteration_s
from vidur_ext.engine.layout import (
    NEVER,
    Batching,
    Clock,
    Counter,
    Inputs,
    Ints,
    Own,
    Prefixes,
    Replica,
    Request,
    Shelf,
    Simulation,
    Text,
    Time,
    one_of,
    with_inputs,
)
from vidur_ext.engine.loop import assign_one, close_instant, run_batch
from vidur_ext.engine.preemption import find_next_finish
from vidur_ext.routing.dice import Dice, lightest
from vidur_ext.routing.output_lengths import expected_output, learn_length

_OF_REQUEST, _OF_TIMES = len(Request), len(Time)

_NEVER_SERVED_S = 1e6
"""What a request costs that its replica can never serve."""


class Plan(NamedTuple):
    """How choices are simulated.

    ttft_weight: L. clairvoyant: the true output lengths are known. bench: a simulation of one
    replica, working memory for as many requests as any simulation has; its tables are those that
    are planned with. totals [N]: expected tokens of the requests on the bench; keys [N], order [N]:
    room to put them in order.
    """

    ttft_weight: float
    clairvoyant: bool
    bench: Simulation
    totals: Ints
    keys: Ints
    order: Ints


class Learned(NamedTuple):
    """What B simulations have shown of output lengths.

    lengths [B, ...]: a table each, see ``new_lengths``; counted int64 [B]: completions in them.
    """

    lengths: Floats
    counted: Ints


@compiled
def _copy(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy a row: an assignment of slices would allocate memory."""
    for place in range(len(source)):
        target[place] = source[place]


@compiled
def _copy_columns(source: NDArray[Any], target: NDArray[Any], count: int) -> None:
    """Copy a row of so many columns, a number that the compiler knows."""
    for column in range(count):
        target[column] = source[column]


@compiled
def _longest(bench: Simulation) -> int:
    """Return the tokens of the longest request that the tables cover and the cache can serve.

    Nobody expects more: that request would never end.
    """
    tables, own = bench.tables, bench.settings.own[0]
    covered = (min(tables.decode.shape[2], tables.prefill.shape[1]) - 1) * tables.kv_step
    # Vidur wants one block more than a request needs to go on.
    served = (own[Own.BLOCKS] - own[Own.WATERMARK] - 1) * bench.settings.block_size
    return int(min(covered, served))


@compiled
def _copy_text(
    source: Prefixes | None, target: Prefixes | None, request: int, place: int, known: int
) -> None:
    """Copy a text, if texts matter, of which ``known`` tokens are certain."""
    if source is None or target is None:
        return
    _copy(source.texts[request], target.texts[place])
    target.texts[place, Text.KNOWN] = known


@compiled
def _copy_prefixes(source: Prefixes | None, target: Prefixes | None, replica: int) -> None:
    """Copy a replica's prefix cache, if it has one."""
    if source is None or target is None:
        return
    _copy(source.shelves[replica], target.shelves[0])
    if source.lines.shape[1] == 0:
        return
    for extent in range(source.shelves[replica, Shelf.ROWS]):
        _copy(source.extents[replica, extent], target.extents[0, extent])
    for line in range(source.lines.shape[1]):
        _copy(source.lines[replica, line], target.lines[0, line])


@compiled
def _copy_request(
    plan: Plan, sim: Simulation, lengths: Floats, request: int, done: int, place: int, again: bool
) -> None:
    """Copy a request that has processed ``done`` tokens, with the output that is expected of it.

    Args:
        again: the same place had it before.
    """
    row, copy = sim.state.requests[request], plan.bench.state.requests[place]
    _copy_columns(row, copy, _OF_REQUEST)
    _copy_columns(sim.state.times[request], plan.bench.state.times[place], _OF_TIMES)
    if plan.clairvoyant:
        _copy_text(sim.state.prefixes, plan.bench.state.prefixes, request, place, NEVER)
        return
    prompt = row[Request.TOTAL] - row[Request.OUTPUT]
    # A preempted request has its output so far in its prompt, or only what was done of a prompt.
    known = max(row[Request.PROMPT], done, prompt)
    generated = known - prompt
    _copy_text(sim.state.prefixes, plan.bench.state.prefixes, request, place, known)
    if not again:
        output = expected_output(lengths, sim.estimates, prompt, generated)
        plan.totals[place] = max(min(prompt + output, _longest(plan.bench)), known + 1)
    copy[Request.TOTAL] = plan.totals[place]


@compiled
def _copy_replica(plan: Plan, sim: Simulation, lengths: Floats, replica: int, again: bool) -> int:
    """Copy a replica and the requests on it, which are numbered anew; return how many they are.

    Args:
        again: the bench had this replica before.
    """
    state, copy = sim.state, plan.bench.state
    row = copy.replicas[0]
    _copy(sim.settings.own[replica], plan.bench.settings.own[0])
    _copy(state.replicas[replica], row)
    _copy(state.clocks[replica], copy.clocks[0])
    _copy(state.phases[replica], copy.phases[0])
    _copy_prefixes(state.prefixes, copy.prefixes, replica)
    # What comes after the running batch takes the time that the bench's tables say.
    row[Replica.STEADY] = 0
    count = row[Replica.MEMBERS]
    for slot in range(count):
        request = state.members[replica, slot]
        done = state.requests[request, Request.DONE]
        if slot < row[Replica.DECODING]:
            done += row[Replica.ROUNDS]
        _copy_request(plan, sim, lengths, request, done, slot, again)
        copy.members[0, slot] = slot
        copy.chunks[0, slot] = state.chunks[replica, slot]
    request = row[Replica.HEAD]
    row[Replica.HEAD] = count
    for _ in range(row[Replica.WAITING]):
        _copy_request(plan, sim, lengths, request, 0, count, again)
        copy.requests[count, Request.NEXT] = count + 1
        request = state.requests[request, Request.NEXT]
        count += 1
    row[Replica.TAIL] = count - 1
    find_next_finish(plan.bench, 0)
    copy.now[0] = state.now[0]
    for counter in range(len(copy.counters)):
        copy.counters[counter] = 0
    copy.counters[Counter.OPEN] = row[Replica.ROUTED]
    copy.counters[Counter.ARRIVALS] = count
    return int(count)


@compiled
def _put_in_order(plan: Plan, count: int) -> None:
    """Write the slots of the decoding requests in the order in which they finish.

    Each is counted past by all that finish before it: that takes more steps than other ways, but
    none of them has to be guessed.
    """
    state, keys = plan.bench.state, plan.keys
    for slot in range(count):
        request = state.requests[state.members[0, slot]]
        keys[slot] = (request[Request.TOTAL] - request[Request.DONE]) * count + slot
    for slot in range(count):
        key, before = keys[slot], 0
        for other in range(count):
            before += keys[other] < key
        plan.order[before] = slot


@compiled
def _decode_to_the_end(plan: Plan) -> None:
    """Complete the requests of a steady batch that nobody waits for and no shortage cuts.

    The same rounds as one batch after the other, but all that are alike at once: their times are
    not rounded one by one as Vidur's are.
    """
    bench, state = plan.bench, plan.bench.state
    row = state.replicas[0]
    outside_s = bench.tables.request_s[bench.settings.own[0, Own.KIND]]
    count = row[Replica.DECODING]
    _put_in_order(plan, count)
    end = state.clocks[0, Clock.BATCH_END]
    for place in range(count):
        request = state.members[0, plan.order[place]]
        offset = state.requests[request, Request.DONE]
        finish = state.requests[request, Request.TOTAL] - offset
        # The batch that ends at ``end`` makes it one round more.
        while row[Replica.ROUNDS] + 1 < finish:
            row[Replica.ROUNDS] += 1
            duration = steady_iteration_s(bench, 0)
            if duration == OUTSIDE:
                return
            alike = min(row[Replica.ROOM], finish - row[Replica.ROUNDS] - 1)
            row[Replica.ROUNDS] += alike
            end += (alike + 1) * duration
        state.times[request, Time.COMPLETED] = end + outside_s
        state.counters[Counter.FINISHED] += 1
        row[Replica.DECODING] -= 1
        row[Replica.OFFSETS] -= offset


@compiled
def _will_never_be_short(bench: Simulation) -> bool:
    """Return whether there are blocks for all that the decoding requests are to become."""
    state, size = bench.state, bench.settings.block_size
    row = state.replicas[0]
    if bench.settings.scheduler == Batching.ORCA:
        return True
    left = row[Replica.FREE] - 1
    for slot in range(row[Replica.DECODING]):
        request = state.requests[state.members[0, slot]]
        rounds = request[Request.TOTAL] - request[Request.DONE] - row[Replica.ROUNDS]
        left -= rounds // size + 1
    return bool(left >= 0)


@compiled
def _serve_all(plan: Plan) -> None:
    """Run the bench until its requests are served, or one never can be."""
    bench, state = plan.bench, plan.bench.state
    row = state.replicas[0]
    close_instant(bench)
    while state.clocks[0, Clock.BATCH_END] < np.inf and not state.counters[Counter.OVERFLOW]:
        if row[Replica.STEADY] and row[Replica.WAITING] == 0 and _will_never_be_short(bench):
            _decode_to_the_end(plan)
            return
        run_batch(bench, 0, np.inf)


@compiled
def _time_spent(plan: Plan, count: int, now: float) -> float:
    """Return what the bench's first ``count`` requests cost from ``now`` on [s]."""
    state = plan.bench.state
    spent = (count - state.counters[Counter.FINISHED]) * _NEVER_SERVED_S
    for request in range(count):
        times = state.times[request]
        spent += max(times[Time.COMPLETED] - now, 0.0)
        spent += plan.ttft_weight * max(times[Time.PREFILLED] - now, 0.0)
    return float(spent)


@compiled
def _price(plan: Plan, sim: Simulation, lengths: Floats, costs: Floats) -> None:
    """Write what each choice for the next request costs [R] [s]; the simulation stays as it is."""
    waiting, now = arriving(sim), sim.state.now[0]
    for replica in range(len(costs)):
        costs[replica] = 0.0
        for queued in range(2):
            count = _copy_replica(plan, sim, lengths, replica, queued == 1)
            if queued:
                _copy_request(plan, sim, lengths, waiting, 0, count, False)
                assign_one(plan.bench, 0)
                count += 1
            _serve_all(plan)
            spent = _time_spent(plan, count, now)
            costs[replica] += spent if queued else -spent


@compiled
def _plan_for(plan: Plan, sim: Simulation) -> Plan:
    """Return the plan with a bench whose requests have the texts of a simulation's."""
    own = plan.bench.inputs
    inputs = Inputs(own.choices, sim.inputs.lines, own.turns, own.sessions, own.words)
    bench = with_inputs(plan.bench, inputs)
    return Plan(plan.ttft_weight, plan.clairvoyant, bench, plan.totals, plan.keys, plan.order)


@compiled
def _learn(sim: Simulation, lengths: Floats, counted: int) -> int:
    """Count what was completed after the first ``counted``; return how many that makes."""
    finished = sim.state.counters[Counter.FINISHED]
    for index in range(counted, finished):
        row = sim.state.requests[sim.state.completions[index]]
        learn_length(lengths, row[Request.TOTAL] - row[Request.OUTPUT], row[Request.OUTPUT])
    return int(finished)


@compiled_entry
def price_choices(
    plan: Plan, sims: Simulation, learned: Learned, asked: NDArray[np.bool_], costs: Floats
) -> None:
    """Write what every choice costs where a request waits and it is ``asked`` [B].

    Args:
        sims: B stacked simulations.
        learned: is brought up to date where it is asked.
        costs: [B, R], seconds; the other rows stay as they are.
    """
    for env in range(len(asked)):
        if asked[env]:
            sim = one_of(sims, env)
            learned.counted[env] = _learn(sim, learned.lengths[env], learned.counted[env])
            _price(_plan_for(plan, sim), sim, learned.lengths[env], costs[env])


@compiled_entry
def cheapest(costs: Floats, dice: Dice) -> int:
    """Return the choice that costs [R] least, ties broken as those of heuristics."""
    return lightest(costs, dice)


@compiled_entry
def learn_completions(sims: Simulation, learned: Learned) -> None:
    """Bring up to date what B stacked simulations have shown of output lengths."""
    for env in range(len(learned.counted)):
        sim = one_of(sims, env)
        learned.counted[env] = _learn(sim, learned.lengths[env], learned.counted[env])
