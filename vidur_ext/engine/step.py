"""Compiled: many simulations from one decision to the next, with what is seen and earned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import compiled, compiled_entry
from ppo_scheduler.observation import TELEMETRY, Floats
from vidur_ext.engine.layout import Counter, Ints, Simulation, Time, View, one_of, sees_late
from vidur_ext.engine.look import see
from vidur_ext.engine.loop import AT_END, advance_one, assign_one
from vidur_ext.routing.components import RewardRule
from vidur_ext.routing.features import FeatureRule, write_observation
from vidur_ext.routing.rewards import reward_of
from vidur_ext.routing.view import Memory, Sight

_NUM_MEASURED = len(TELEMETRY)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_FOLD = np.uint64(29)
_sees_late = compiled(sees_late)


class Environments(NamedTuple):
    """B simulations: every array of ``sims`` and ``memory`` has a leading axis of environments.

    sight: working memory; bits: its table's bits.
    traces uint64 [B]: a hash of all that was seen so far.
    """

    sims: Simulation
    memory: Memory
    features: FeatureRule
    reward: RewardRule
    sight: Sight
    bits: NDArray[np.uint64]
    traces: NDArray[np.uint64]


class Outlook(NamedTuple):
    """What a step leaves for the learner.

    replicas [B, R, F], context [B, C], telemetry [B, K], reward [B]; latencies [B * N, 2]: times
    end to end and to first token of the completed requests [s].
    """

    replicas: Floats
    context: Floats
    telemetry: Floats
    reward: Floats
    latencies: Floats


@compiled
def _trace(trace: np.uint64, bits: NDArray[np.uint64]) -> np.uint64:
    """Fold the cluster's table into the hash by multiplications and shifts."""
    mixed = trace
    for row in range(bits.shape[0]):
        for replica in range(bits.shape[1]):
            mixed = (mixed ^ bits[row, replica]) * _MIX
            mixed ^= mixed >> _FOLD
    return mixed


@compiled
def _report_completions(sim: Simulation, latencies: Floats, first: int) -> int:
    """Append the latencies since the last decision; return the row after them."""
    state, arrived = sim.state, sim.state.arrived
    for index in range(state.counters[Counter.SEEN], state.counters[Counter.FINISHED]):
        request = state.completions[index]
        latencies[first, 0] = state.times[request, Time.COMPLETED] - arrived[request]
        latencies[first, 1] = state.times[request, Time.PREFILLED] - arrived[request]
        first += 1
    return first


@compiled
def memory_of(envs: Environments, env: int) -> Memory:
    """Return the memory of one environment; its arrays are views."""
    return Memory(envs.memory.numbers[env], envs.memory.outstanding[env], envs.memory.qps[env])


@compiled
def show(envs: Environments, memory: Memory, env: int, out: Outlook) -> None:
    """Write the observation of what is in sight."""
    envs.traces[env] = _trace(envs.traces[env], envs.bits)
    write_observation(
        envs.features,
        envs.sight,
        memory,
        out.replicas[env],
        out.context[env],
        out.telemetry[env],
    )


@compiled
def _look(envs: Environments, sim: Simulation, env: int, waits: bool, out: Outlook) -> None:
    """Write what environment ``env`` earned, and shows if a request waits.

    What is seen late is not shown here: see ``delayed``. What was earned is no signal.
    """
    memory, components = memory_of(envs, env), out.telemetry[env, _NUM_MEASURED:]
    see(View(sim, sim.state), envs.reward, envs.sight)
    out.reward[env] = reward_of(envs.reward, envs.sight, memory, components)
    if waits and not _sees_late(sim.settings):
        show(envs, memory, env, out)


@compiled_entry
def step(envs: Environments, actions: Ints, out: Outlook) -> tuple[int, int]:
    """Route the waiting requests, if ``actions`` [B] holds any, and go on to the next ones.

    Returns how many environments wait for a decision and how many requests were completed. An
    environment that does not wait is at its end, or has failed.
    """
    waiting = completed = 0
    for env in range(len(envs.traces)):
        sim = one_of(envs.sims, env)
        if len(actions):
            assign_one(sim, actions[env])
        waits = advance_one(sim) != AT_END
        waiting += waits
        completed = _report_completions(sim, out.latencies, completed)
        _look(envs, sim, env, waits, out)
    return waiting, completed
