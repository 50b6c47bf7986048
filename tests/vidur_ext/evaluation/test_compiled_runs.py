"""Runs on the compiled engine are Vidur's runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy, save_policy
from vidur_ext.config.sections import HEURISTICS
from vidur_ext.evaluation.engines import (
    NEAR_TIE,
    check_engine,
    first_routed_elsewhere,
    preference_gap,
)
from vidur_ext.evaluation.runner import (
    EvaluationJob,
    compiled_runs,
    evaluate,
    heuristic_run,
    policy_runs,
)
from vidur_ext.routing.features import observation_schema
from vidur_ext.vidur.flag_values import cli_flags
from vidur_ext.vidur.flags import parse_simulation_config
from vidur_ext.workload.held_out import evaluation_table

EVALUATION = {"requests": 48, "num_seeds": 2, "schedulers": list(HEURISTICS)}


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
def simulation_config(tmp_path):
    def build(config, scheduler: str = "ppo_modular", *flags: str):
        plain = cli_flags(config, scheduler, metrics_dir=str(tmp_path / "vidur"))
        return parse_simulation_config([*plain, *flags])

    return build


def assert_same(ours, theirs) -> None:
    assert (ours.scheduler, ours.seed) == (theirs.scheduler, theirs.seed)
    assert ours.uses_output_lengths == theirs.uses_output_lengths
    assert ours.workload_digest() == theirs.workload_digest()
    np.testing.assert_array_equal(ours.replica, theirs.replica)
    for name in ("scheduled_at", "prefill_completed_at", "completed_at"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9)


def test_every_heuristic_does_what_it_does_on_vidur(config, tmp_path):
    runs = compiled_runs(config, {}, str(tmp_path))
    assert [(run.scheduler, run.seed) for run in runs] == [
        (name, seed) for name in HEURISTICS for seed in range(2)
    ]
    for run in runs:
        job = EvaluationJob(config, run.scheduler, run.seed, None, str(tmp_path))
        assert_same(run, evaluate(job))
        assert run.decisions_per_second > 0


@pytest.mark.parametrize("output_length", ["hidden", "oracle"])
def test_a_policy_does_what_it_does_on_vidur(make_config, tmp_path, output_length):
    config = make_config(
        evaluation={**EVALUATION, "num_seeds": 1, "schedulers": ["least_outstanding"]},
        observation={"output_length": output_length},
    )
    save_policy(untrained_policy(config), tmp_path / "policy.pt")
    runs = compiled_runs(config, {"ppo": tmp_path / "policy.pt"}, str(tmp_path))
    assert runs[0].uses_output_lengths == (output_length == "oracle")
    assert_same(
        runs[0], evaluate(EvaluationJob(config, "ppo", 0, tmp_path / "policy.pt", str(tmp_path)))
    )


def test_workloads_side_by_side_are_the_workloads_one_by_one(config, simulation_config):
    policy, parsed = untrained_policy(config), simulation_config(config)
    tables = [evaluation_table(config, seed) for seed in range(2)]
    together = policy_runs(parsed, "ppo", policy, tables)
    for run, table in zip(together, tables, strict=True):
        [alone] = policy_runs(parsed, "ppo", policy, [table])
        assert run.workload_digest() == alone.workload_digest()
        if first_routed_elsewhere(alone, run) is None:
            np.testing.assert_array_equal(run.completed_at, alone.completed_at)
        else:
            assert preference_gap(parsed, policy, alone, run) < NEAR_TIE


def test_tables_of_two_lengths_are_refused(config, simulation_config):
    table = evaluation_table(config, 0)
    with pytest.raises(UserError, match=r"2 environments need .* not 2 of lengths \[20, 48\]"):
        policy_runs(
            simulation_config(config), "ppo", untrained_policy(config), [table, table.slice(0, 20)]
        )


def test_a_cluster_that_only_vidur_simulates_is_refused(config, simulation_config):
    limited = simulation_config(config, "least_kv", "--time_limit", "10")
    with pytest.raises(UserError, match="does not simulate a time limit"):
        heuristic_run(limited, "least_kv", 0, evaluation_table(config, 0))


def test_the_gap_is_that_of_the_choices_where_they_first_differ(
    config, simulation_config, make_changed_run
):
    policy, parsed = untrained_policy(config), simulation_config(config)
    [run] = policy_runs(parsed, "ppo", policy, [evaluation_table(config, 0)])
    late = make_changed_run(run, 40)
    assert preference_gap(parsed, policy, late, run) > NEAR_TIE
    idle = preference_gap(parsed, policy, make_changed_run(late, 0), run)
    assert idle <= NEAR_TIE, "equal rows of a product need not be equal bits"
    for parameter in policy.network.parameters():
        parameter.data *= 0.0
    assert preference_gap(parsed, policy, late, run) == 0.0


def test_the_check_makes_all_runs_again(config, policy_file, tmp_path):
    policies = {"ppo": policy_file}
    vidur = [
        evaluate(EvaluationJob(config, name, seed, policies.get(name), str(tmp_path)))
        for name in ("ppo", *HEURISTICS)
        for seed in range(2)
    ]
    engines = check_engine(config, policies, str(tmp_path), vidur)
    assert [one.name for one in engines.schedulers] == ["ppo", *HEURISTICS]
    assert all(one.agrees for one in engines.schedulers)
    assert all(engines[name].completion_difference < 1e-9 for name in HEURISTICS)


def test_a_policy_that_runs_as_another_one_is_no_rounding(config, policy_file, tmp_path):
    narrow = config.evaluation.model_copy(update={"schedulers": ("least_outstanding",)})
    config = config.model_copy(update={"evaluation": narrow})
    other = tmp_path / "other.pt"
    save_policy(untrained_policy(config, seed=1), other)
    vidur = [
        evaluate(EvaluationJob(config, name, seed, path, str(tmp_path)))
        for name, path in (("ppo", other), ("least_outstanding", None))
        for seed in range(2)
    ]
    engines = check_engine(config, {"ppo": policy_file}, str(tmp_path), vidur)
    one = engines["ppo"]
    assert not one.agrees
    assert one.routed_elsewhere > 0
    assert one.preference_gap > NEAR_TIE
    assert engines["least_outstanding"].agrees
