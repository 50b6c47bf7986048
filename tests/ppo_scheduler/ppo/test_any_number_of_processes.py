"""What is learned has the same bits, whoever computes a shard.

The processes are threads here, of which one computes at a time: networks of one shape share the
memory that compiled code computes in.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from bits import bits, clocked
from hypothesis import given, settings
from hypothesis import strategies as st
from threaded_processes import in_threads

from ppo_scheduler.config.learner_sections import (
    ArchitectureSection,
    OptimizationSection,
    PPOSection,
)
from ppo_scheduler.observation import TELEMETRY, Observation, ObservationSchema
from ppo_scheduler.parallel.shards import Processes, Shards
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.ppo.batches import Batch, PricedBatch, SampledBatch
from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.ppo.update import Coefficients, PPOUpdater
from ppo_scheduler.state import StateDict, snapshot

SHARDS, STEPS = 4, 70

# As wide as real observations: torch takes a sum of few numbers in the same order in any case.
SCHEMA = ObservationSchema(
    replica=("load", *(f"noise_{i}" for i in range(30))),
    context=tuple(f"size_{i}" for i in range(14)),
    telemetry=(*TELEMETRY, "latency"),
)

# All that could depend on who computes is switched on. Some minibatches have no row of a shard.
GROUPS: dict[str, dict[str, object]] = {
    "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
    "ppo_config": {
        "rollout_len": 100,
        "minibatch_size": 3,
        "epochs": 2,
        "target_kl": 0.02,
        "action_balance_coef": 0.1,
    },
    "advanced_optimization": {
        "accumulation_steps": 2,
        "adaptive_minibatch": True,
        "min_minibatch_size": 2,
        "max_minibatch_size": 16,
    },
    "temperature_control": {"enabled": True, "stagnation_window": 10},
    "reward_config": {"normalize": True},
    "collapse_guard": {"enabled": True, "window": 32, "max_share": 0.4, "intervention_steps": 50},
    "kl_regularization": {"initial_coef": 0.1, "final_coef": 0.05},
}


class Part:
    """Those environments of a task that are of one process; it draws what all of them see."""

    def __init__(self, task: Any, shards: Shards) -> None:
        self.task = task
        self._shards = shards

    def step(self, learner: Learner) -> None:
        task, envs, every = self.task, self._shards.envs, self._shards.num_envs
        seen, rng = task.observation(), task.rng
        seen.telemetry[:, : len(TELEMETRY)] = rng.random((every, len(TELEMETRY))) * 20.0
        seen.telemetry[rng.random(every) < 0.2, TELEMETRY.index("latency_s")] = np.nan
        replicas = rng.random((every, 3, len(SCHEMA.replica)))
        replicas[..., 0] = task.loads
        context = rng.random((every, len(SCHEMA.context)))
        own = Observation(replicas[envs], context[envs], seen.telemetry[envs])
        asked, loads = learner.asks(), task.loads[envs]
        costs = None if asked is None else np.where(asked[:, None], loads, np.nan)
        action = learner.decide(own, task.reward[envs], task.done[envs], costs)
        task.reward[envs] = -loads[np.arange(len(action)), action]
        task.steps += 1
        task.done = np.full(every, task.steps % 25 == 0)
        task.loads = rng.random(task.loads.shape)


@dataclass(frozen=True)
class Left:
    """What some steps of a training have left: its state, its world and what was logged."""

    state: StateDict
    task: Any
    records: list[tuple[int, dict[str, float]]]


def through_file(state: StateDict) -> StateDict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: StateDict = torch.load(file, weights_only=True)
    return loaded


@pytest.fixture(params=["counterfactual", "gae"])
def train(request, make_config, make_task, sink) -> Callable[..., list[Left]]:
    """Train in so many processes, from the beginning or from what was left.

    In four shards, ten environments are 2, 3, 2 and 3.
    """
    ppo = {**GROUPS["ppo_config"], "advantage": request.param}
    config = make_config(**{**GROUPS, "ppo_config": ppo})

    def run(
        count: int,
        steps: int,
        left: Left | None = None,
        shards: int = SHARDS,
        num_envs: int = 10,
    ) -> list[Left]:
        task = make_task(num_envs) if left is None else left.task

        def program(processes: Processes) -> Left:
            split = Shards(num_envs, shards, processes)
            part, seen = Part(copy.deepcopy(task), split), type(sink)()
            learner = Learner(config, SCHEMA, 3, seen, shards=split)
            learner.updater.keep_reference()
            if left is not None:
                learner.load_state_dict(through_file(left.state))
            for _ in range(steps):
                part.step(learner)
            part.task.reward = split.together(part.task.reward[split.envs].copy())
            return Left(snapshot(learner.state_dict()), part.task, seen.records)

        return in_threads(count, program)

    return run


def without_clock(records: list[tuple[int, dict[str, float]]]) -> list[object]:
    return [
        (step, {name: repr(value) for name, value in scalars.items() if not clocked(name)})
        for step, scalars in records
    ]


def test_all_that_is_to_be_compared_happens(train) -> None:
    [alone] = train(1, STEPS)
    learner, last = alone.state["learner"], alone.records[-1][1]
    assert learner["counters"]["updates"] >= 5
    assert learner["guard"]["interventions"] > 0
    assert learner["temperature"]["pulses"] > 0
    assert last["Training/ReferenceKL"] > 0.0
    assert alone.state["rollout"]["buffer"]["filled"] > 0
    minibatches = {scalars.get("Training/MinibatchSize") for _, scalars in alone.records}
    assert len(minibatches) > 1


@pytest.mark.parametrize(("count", "num_envs"), [(2, 10), (4, 10), (4, 4)])
def test_it_has_the_same_bits_in_every_process(train, count, num_envs) -> None:
    """Weights, moments of AdamW, statistics, rollout, random numbers, counters: the whole state."""
    [alone] = train(1, STEPS, num_envs=num_envs)
    expected, logged = bits(alone.state), without_clock(alone.records)
    for left in train(count, STEPS, num_envs=num_envs):
        assert bits(left.state) == expected
        assert without_clock(left.records) == logged


def test_any_number_of_processes_goes_on_from_any_other(train) -> None:
    """From two to four to one, in the middle of rollouts and of episodes."""
    [alone] = train(1, STEPS)
    first, *_ = train(2, 27)
    second, *_ = train(4, 19, first)
    [third] = train(1, STEPS - 27 - 19, second)
    assert bits(third.state) == bits(alone.state)
    records = first.records + second.records + third.records
    assert without_clock(records) == without_clock(alone.records)


def test_the_number_of_shards_decides_over_the_bits(train) -> None:
    """Sums are taken shard by shard, and minibatches have rows of each."""
    weights = [
        bits(train(1, STEPS, shards=shards)[0].state["learner"]["policy"]) for shards in (1, 2, 4)
    ]
    assert weights[0] != weights[1] != weights[2] != weights[0]


def rows(kind: str, count: int, replicas: int, rng: np.random.Generator) -> Batch:
    """Return random rows of a shard."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(count, *shape)).astype(np.float32))

    seen = draw(replicas, 5), draw(2), draw().exp()
    if kind == "counterfactual":
        return PricedBatch(*seen, torch.log_softmax(draw(replicas), dim=-1), draw(replicas))
    action = torch.from_numpy(rng.integers(0, replicas, count))
    return SampledBatch(*seen, action, draw() - 1.0, draw(), draw(), draw())


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(["counterfactual", "gae"]),
    lengths=st.lists(st.integers(0, 40), min_size=4, max_size=4).filter(any),
    replicas=st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16, 17, 40]),
    wanted=st.integers(4, 60),
    accumulation=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_an_update_has_the_same_bits_whatever_rows_the_shards_have(
    kind, lengths, replicas, wanted, accumulation, seed
) -> None:
    """Also where a shard has none, as when none of its decisions was priced."""
    rng = np.random.default_rng(seed)
    batches = [rows(kind, length, replicas, rng) for length in lengths]
    section = PPOSection.model_validate(
        {"minibatch_size": wanted, "epochs": 1, "action_balance_coef": 0.3}
    )
    optimization = OptimizationSection(accumulation_steps=accumulation)
    coefficients = Coefficients(learning_rate=1e-2, entropy=0.01, reference_kl=0.1)

    def program(processes: Processes) -> object:
        shards = Shards(4, 4, processes)
        network = ActorCritic(5, 2, ArchitectureSection(hidden_size=8, attention_heads=1), "fused")
        network.initialize(torch.Generator().manual_seed(seed), False)
        updater = PPOUpdater(network, section, optimization, shards)
        updater.keep_reference()
        own = [batches[shard] for shard in shards.own]
        decisions = np.array(lengths)
        logged = updater.update(own, decisions, coefficients, np.random.default_rng(seed))
        state = updater.state_dict(with_optimizer=True)
        return bits([network.state_dict(), state, [f"{n}: {v!r}" for n, v in logged.items()]])

    [alone] = in_threads(1, program)
    for count in (2, 4):
        assert in_threads(count, program) == [alone] * count
