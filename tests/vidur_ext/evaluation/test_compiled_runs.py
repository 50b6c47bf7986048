"""Runs on the compiled engine are Vidur's runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy, save_policy
from vidur_ext.config.sections import USUAL_SCHEDULERS
from vidur_ext.evaluation.engines import (
    NEAR_TIE,
    check_engine,
    first_routed_elsewhere,
    preference_gap,
)
from vidur_ext.evaluation.runner import (
    compared_runs,
    held_out_workloads,
    read_policy,
    runs_on_engine,
    runs_on_vidur,
)
from vidur_ext.routing.features import observation_schema
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import evaluation_table

EVALUATION = {"requests": 48, "num_seeds": 2, "schedulers": list(USUAL_SCHEDULERS)}
SEEDS = range(2)


def untrained_policy(config, seed: int = 0) -> RoutingPolicy:
    """Return a policy that prefers some replica in every state, for no good reason."""
    schema = observation_schema(config.observation)
    policy = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    policy.initialize(seed)
    for parameter in policy.network.parameters():
        parameter.data *= 3.0
    rng = np.random.default_rng(seed)
    shapes = (8, 3, len(schema.replica)), (8, len(schema.context)), (8, len(schema.telemetry))
    policy.collect(Observation(*(rng.normal(size=shape) for shape in shapes)))
    return policy


@pytest.fixture
def config(make_config):
    return make_config(evaluation=EVALUATION)


@pytest.fixture
def policy_file(config, tmp_path) -> Path:
    save_policy(untrained_policy(config), tmp_path / "policy.pt")
    return tmp_path / "policy.pt"


@pytest.fixture
def on_vidur():
    """Run a scheduler, or a policy of a file, over one held-out workload on Vidur."""

    def run(config, name: str, seed: int, file: Path | None = None):
        policy = None if file is None else read_policy(config, file)
        [result] = runs_on_vidur(config, name, policy, {seed: evaluation_table(config, seed)})
        return result

    return run


def compared(config, policies, engine: str = "compiled", seeds=SEEDS):
    return compared_runs(config, policies, engine, seeds, lambda runs, done, total: None)


def assert_same(ours, theirs) -> None:
    assert (ours.scheduler, ours.seed) == (theirs.scheduler, theirs.seed)
    assert ours.uses_output_lengths == theirs.uses_output_lengths
    assert ours.table.digest() == theirs.table.digest()
    np.testing.assert_array_equal(ours.replica, theirs.replica)
    for name in ("scheduled_at", "prefill_completed_at", "completed_at"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9)


def test_every_heuristic_does_what_it_does_on_vidur(config, on_vidur):
    runs = compared(config, {})
    assert [(run.scheduler, run.seed) for run in runs] == [
        (name, seed) for name in USUAL_SCHEDULERS for seed in range(2)
    ]
    for run in runs:
        assert_same(run, on_vidur(config, run.scheduler, run.seed))
        assert run.decisions_per_second > 0


@pytest.mark.parametrize("output_length", ["hidden", "oracle"])
def test_a_policy_does_what_it_does_on_vidur(make_config, tmp_path, output_length, on_vidur):
    config = make_config(
        evaluation={**EVALUATION, "num_seeds": 1, "schedulers": ["least_outstanding"]},
        observation={"output_length": output_length},
    )
    save_policy(untrained_policy(config), tmp_path / "policy.pt")
    runs = compared(config, {"ppo": tmp_path / "policy.pt"}, seeds=[0])
    assert runs[0].uses_output_lengths == (output_length == "oracle")
    assert_same(runs[0], on_vidur(config, "ppo", 0, tmp_path / "policy.pt"))


def test_workloads_side_by_side_are_the_workloads_one_by_one(config):
    policy, cluster = untrained_policy(config), engine_cluster(config)
    workloads = held_out_workloads(config, SEEDS)
    together = runs_on_engine(config, cluster, "ppo", policy, workloads)
    for run in together:
        [alone] = runs_on_engine(config, cluster, "ppo", policy, {run.seed: workloads[run.seed]})
        assert run.table.digest() == alone.table.digest()
        if first_routed_elsewhere(alone, run) is None:
            np.testing.assert_array_equal(run.completed_at, alone.completed_at)
        else:
            assert preference_gap(config, policy, run) <= NEAR_TIE


def test_tables_of_two_lengths_are_refused(config):
    table, policy = evaluation_table(config, 0), untrained_policy(config)
    workloads = {0: table, 1: table.slice(0, 20)}
    with pytest.raises(UserError, match=r"2 environments need .* not 2 of lengths \[20, 48\]"):
        runs_on_engine(config, engine_cluster(config), "ppo", policy, workloads)


def test_the_gap_is_the_most_that_the_policy_disagrees_with_a_run(config, make_changed_run):
    policy, workloads = untrained_policy(config), {0: evaluation_table(config, 0)}
    [run] = runs_on_engine(config, engine_cluster(config), "ppo", policy, workloads)
    assert preference_gap(config, policy, run) <= NEAR_TIE
    idle = make_changed_run(run, 0)
    assert preference_gap(config, policy, idle) > NEAR_TIE, "what follows a tie is judged as well"
    assert preference_gap(config, policy, make_changed_run(run, 40)) > NEAR_TIE
    for parameter in policy.network.parameters():
        parameter.data *= 0.0
    assert preference_gap(config, policy, idle) == 0.0


def test_each_scheduler_is_reported_once_with_all_its_runs(config, policy_file):
    told = []
    compared_runs(
        config, {"ppo": policy_file}, "compiled", SEEDS,
        lambda runs, done, total: told.append(([(r.scheduler, r.seed) for r in runs], done, total)),
    )  # fmt: skip
    names = ["ppo", *USUAL_SCHEDULERS]
    assert told == [
        ([(name, seed) for seed in SEEDS], done, len(names)) for done, name in enumerate(names, 1)
    ]


def test_what_is_spread_over_processes_is_what_runs_here(config, policy_file, monkeypatch):
    policies = {"ppo": policy_file}
    here = compared(config, policies)
    monkeypatch.setattr("vidur_ext.evaluation.runner.PLANNERS", ("least_tokens", "random"))
    spread = compared(config, policies)
    assert [(run.scheduler, run.seed) for run in spread] == [
        (run.scheduler, run.seed) for run in here
    ]
    for ours, theirs in zip(spread, here, strict=True):
        np.testing.assert_array_equal(ours.completed_at, theirs.completed_at)
        np.testing.assert_array_equal(ours.replica, theirs.replica)


def test_vidur_checks_the_engine_on_the_first_workloads(config, policy_file):
    policies = {"ppo": policy_file}
    repeated = compared(config, policies, "vidur", seeds=[0])
    engines = check_engine(config, policies, repeated, compared(config, policies))
    assert engines.seeds == (0,)
    assert [one.name for one in engines.schedulers] == ["ppo", *USUAL_SCHEDULERS]
    assert all(one.agrees for one in engines.schedulers)
    assert all(one.requests == 48 for one in engines.schedulers)
    assert all(engines[name].completion_difference < 1e-9 for name in USUAL_SCHEDULERS)


def test_a_policy_that_runs_as_another_one_is_no_rounding(config, policy_file, tmp_path, on_vidur):
    narrow = config.evaluation.model_copy(update={"schedulers": ("least_outstanding",)})
    config = config.model_copy(update={"evaluation": narrow})
    other = tmp_path / "other.pt"
    save_policy(untrained_policy(config, seed=1), other)
    vidur = [
        on_vidur(config, name, seed, path)
        for name, path in (("ppo", other), ("least_outstanding", None))
        for seed in range(2)
    ]
    policies = {"ppo": policy_file}
    engines = check_engine(config, policies, vidur, compared(config, policies))
    one = engines["ppo"]
    assert not one.agrees
    assert one.routed_elsewhere > 0
    assert one.preference_gap > NEAR_TIE
    assert engines["least_outstanding"].agrees
